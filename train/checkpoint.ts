/**
 * Training runs on disk: everything that a run needs to go on bit for bit.
 * @module
 */
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";
import { Safetensors, safetensorsChunks } from "../core/safetensors.ts";
import type { WriteFile } from "../core/sae_file.ts";
import type { Source } from "../core/source.ts";
import { type BatchPosition, POSITION } from "./batch_source.ts";
import type { SaeRecipe } from "./recipe.ts";
import type { RowStatistics } from "./row_statistics.ts";
import type { ControllerState } from "./sparsity_controller.ts";
import type { SaeTrainer } from "./trainer.ts";

/** File of the last checkpoint in the folder of a run. */
export const CHECKPOINT_FILE = "checkpoint.safetensors";
/** Key under which the rest of a checkpoint lies in its file. */
const KEY = "open_concept_steering";

/** What of a run is neither in its tensors nor in its batches. */
export interface RunState {
  /** Of the controller of λ; undefined without one. */
  readonly controller: ControllerState | undefined;
  /** Features resampled since the last line of metrics. */
  readonly nResampled: number;
  /** Which paths steps may take: the same bits need the same choices. */
  readonly path: PathChoice;
  /** Activations up to which the sparse path is taken: likewise. */
  readonly sparseEntries: number;
  /** Variants of kernels that are in use, of `gpu.tuning`: likewise. */
  readonly kernels: Readonly<Record<string, unknown>>;
}

/** Ways that steps may go after encoding; "auto" is whichever is cheaper for a batch. */
export type PathChoice = "auto" | "dense" | "sparse";

/** A checkpoint that was opened: what it says, and its tensors. */
export interface OpenCheckpoint {
  /** Its tensors. */
  readonly file: Safetensors;
  /** The rest. */
  readonly info: CheckpointInfo;
}

/** Batches as far as a checkpoint needs them. */
interface CheckpointedBatches {
  readonly statistics: Pick<RowStatistics, "n" | "meanNorm">;
  readonly position: BatchPosition;
  restore(position: BatchPosition): Promise<void> | void;
}

/** What a checkpoint says beside its tensors. */
export interface CheckpointInfo {
  readonly step: number;
  readonly controller: ControllerState | null;
  readonly nResampled: number;
  readonly path: PathChoice;
  /** null where all are. */
  readonly sparseEntries: number | null;
  readonly kernels: Readonly<Record<string, unknown>>;
  readonly position: BatchPosition;
  readonly statistics: { readonly n: number; readonly meanNorm: number };
  readonly recipe: Readonly<Record<string, unknown>>;
}

const count = z.int().min(0);
const Info: z.ZodType<CheckpointInfo> = z.object({
  step: count,
  controller: z.object({
    factor: z.number().positive(),
    error: z.number().nullable(),
    measured: z.number().min(0).nullable(),
  }).nullable(),
  nResampled: count,
  path: z.enum(["auto", "dense", "sparse"]),
  sparseEntries: z.number().min(0).nullable(),
  kernels: z.record(z.string(), z.unknown()),
  position: POSITION,
  statistics: z.object({ n: count, meanNorm: z.number() }),
  recipe: z.record(z.string(), z.unknown()),
});

/**
 * Writes a checkpoint; take no step meanwhile.
 * @throws {RangeError} If a step was not finite; nothing is written then.
 */
export async function writeCheckpoint(
  write: WriteFile,
  trainer: SaeTrainer,
  batches: CheckpointedBatches,
  recipe: SaeRecipe,
  { controller, sparseEntries, ...state }: RunState,
): Promise<void> {
  await trainer.assertFinite();
  const { n, meanNorm } = batches.statistics;
  const info: CheckpointInfo = {
    step: trainer.steps,
    controller: controller ?? null,
    sparseEntries: sparseEntries === Infinity ? null : sparseEntries,
    ...state,
    position: batches.position,
    statistics: { n, meanNorm },
    recipe: { ...recipe },
  };
  await write(
    CHECKPOINT_FILE,
    safetensorsChunks(trainer.stateTensors(), { [KEY]: JSON.stringify(info) }),
  );
}

/**
 * Opens a checkpoint.
 * @throws {SyntaxError} If the file is no checkpoint, or damaged.
 */
export async function openCheckpoint(source: Source): Promise<OpenCheckpoint> {
  try {
    const file = await Safetensors.open(source);
    const text = file.metadata[KEY] ?? "null";
    return { file, info: checkJson(Info, parse(text), source.name) };
  } catch (cause) {
    throw new SyntaxError(
      `Cannot resume from "${source.name}": it is damaged, or no checkpoint of this version: remove it to begin anew`,
      { cause },
    );
  }
}

/**
 * Checks that a run may go on from a checkpoint.
 * @throws {RangeError} If it is of another recipe or other data: names what differs.
 */
export function checkSameRun(
  { file, info }: OpenCheckpoint,
  recipe: SaeRecipe,
  { n, meanNorm }: CheckpointedBatches["statistics"],
): void {
  const want: Record<string, unknown> = { ...recipe, n, meanNorm };
  const got: Record<string, unknown> = { ...info.recipe, ...info.statistics };
  for (const name of Object.keys(want)) {
    const [now, then] = [want[name], got[name]].map((value) =>
      JSON.stringify(value)
    );
    if (now === then) continue;
    throw new RangeError(
      `Cannot resume from "${file.source.name}": expected ${name} ${then}, with which it was trained: got ${now}: choose another output folder, or the same settings`,
    );
  }
}

/**
 * Moves a new trainer and its batches to where a checkpoint was written; gives the rest of its state.
 * @throws {RangeError} If a tensor is missing or of another size, or the position is none of this data.
 */
export async function resumeFrom(
  { file, info }: OpenCheckpoint,
  trainer: SaeTrainer,
  batches: CheckpointedBatches,
): Promise<RunState> {
  await trainer.restore(file, info.step);
  await batches.restore(info.position);
  return {
    ...info,
    controller: info.controller ?? undefined,
    sparseEntries: info.sparseEntries ?? Infinity,
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // The schema refuses it with the file's name.
  }
}
