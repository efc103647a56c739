/**
 * The model that replies: its files, the plan of its memory, and its way to the GPU.
 * @module
 */
import {
  modelFingerprint,
  type ModelFolder,
  openModelFolder,
} from "../core/model_folder.ts";
import { Olmo2 } from "../core/olmo2.ts";
import { type Olmo2Config, readModelConfig } from "../core/olmo2_config.ts";
import { openCheckpoint } from "../core/safetensors.ts";
import { missingFile } from "../core/source.ts";
import type { Tokenizer } from "../core/tokenizer.ts";
import { modelDirectory, type QuantizeFlag, type TaskContext } from "./cli.ts";
import { memoryBudget } from "./memory_budget.ts";
import { checkModelPlan, type ModelUse, planModel } from "./model_plan.ts";
import type { SteerFlags } from "./steering.ts";

/** A model's files; reading the tokenizer throws where there is none. */
export interface ModelForIds extends ModelFolder {
  /** Whether there is a tokenizer. */
  readonly hasTokenizer: boolean;
}

/** Flags that say which model is opened, and how. */
export interface OpenedModel {
  readonly model?: string | undefined;
  readonly quantize?: QuantizeFlag;
  readonly context?: number | undefined;
}

/**
 * Opens the model that `--model` names, or the embedded one, with the context that `--context` leaves it. A folder without
 * a tokenizer will do where only token ids are asked for.
 * @throws {Error} As `openModelFolder`.
 * @throws {RangeError} If the model has no context so long.
 */
export async function openModelForIds(
  { model: typed, quantize: flag = "none", context }: OpenedModel,
): Promise<ModelForIds> {
  const folder = await modelDirectory(typed);
  const quantize = flag === "none" ? undefined : flag;
  if (await folder.has("tokenizer.json")) {
    const model = await openModelFolder(folder, quantize);
    const config = shortened(model, context);
    return { ...model, config, hasTokenizer: true };
  }
  const config = await readModelConfig(folder);
  const checkpoint = await openCheckpoint(folder);
  return {
    name: folder.name,
    config: shortened({ name: folder.name, config }, context),
    checkpoint,
    fingerprint: await modelFingerprint(config, checkpoint),
    ...(quantize && { quantize }),
    hasTokenizer: false,
    get tokenizer(): Tokenizer {
      throw missingFile(folder.name, "tokenizer.json");
    },
  };
}

/**
 * Sizes with the context that `--context` leaves of the model's own.
 * @throws {RangeError} If it has none so long.
 */
export function shortened(
  { name, config }: Pick<ModelFolder, "name" | "config">,
  context: number = config.context_length,
): Olmo2Config {
  if (context <= config.context_length) {
    return { ...config, context_length: context };
  }
  throw new RangeError(
    `Cannot take --context ${context}: the context of model "${name}" is ${config.context_length} tokens: shorten it`,
  );
}

/**
 * Says what memory will be held, and puts a model on a GPU.
 * @param use Tokens of replies and their prompts, at once.
 * @throws {RangeError} If it does not fit into what `--memory` says, or the memory that a software driver shares: says
 * with which flags it does.
 */
export async function loadModel(
  flags: SteerFlags,
  folder: ModelFolder,
  use: Omit<ModelUse, "model" | "quantize">,
  context: TaskContext,
): Promise<Olmo2> {
  const { config, checkpoint, quantize } = folder;
  const gpu = await context.openGpu(flags.gpu);
  const plan = planModel(
    { ...use, model: folder, quantize },
    memoryBudget(gpu, flags.memory),
  );
  context.plan(plan.rows);
  checkModelPlan(plan);
  using progress = context.progress({ label: "load", unit: "MB" });
  return await Olmo2.load(gpu, checkpoint, config, {
    quantize,
    onProgress: (bytes) => progress.update(bytes / 1e6),
  });
}
