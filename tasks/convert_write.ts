/**
 * Writes what `convert` is asked to: an SAE in another layout, or a control vector of one feature.
 * @module
 */
import { createHash } from "node:crypto";
import { writeAtomic } from "../core/files.ts";
import { controlVectorGguf } from "../core/gguf.ts";
import {
  hookPlace,
  type HookPoint,
  parseHookPoint,
} from "../core/hook_point.ts";
import type { SaeFile } from "../core/sae_file.ts";
import { DENSITY_FILE, FEATURE_MAX_FILE } from "../core/sae_save.ts";
import {
  checkTarget,
  SAE_TARGETS,
  type SaeTarget,
  type SaeToWrite,
  type WriteFile,
  writeSae,
  type WrittenMetadata,
} from "../core/sae_write.ts";
import type { Source } from "../core/source.ts";
import { chunksOf } from "../core/text_lines.ts";
import { FEATURES_FILE } from "../steer/feature_index_file.ts";
import {
  type Intervention,
  parseIntervention,
} from "../steer/interventions.ts";
import { featureOfLabel, LABELS_FILE, readLabels } from "../steer/labels.ts";
import { type TaskContext, userPath } from "./cli.ts";
import type { ConvertFlags } from "./convert_flags.ts";
import { formatBytes } from "./format.ts";
import { exists } from "./hub_folder.ts";
import { checkNewFolder, writeNewFolder } from "./new_folder.ts";

/** Writes, and says what it wrote. */
export type Conversion = (context: TaskContext) => Promise<string>;

/**
 * Checks all that can be checked before anything is written.
 * @returns What is to be done; undefined where nothing is to be written.
 * @throws {TypeError} If flags are missing, or the layout cannot say what the SAE is.
 * @throws {RangeError} If there is no such feature, or the hook point is another than the SAE's.
 * @throws {Error} If something is where it is to be written.
 */
export async function planConversion(
  sae: SaeFile,
  flags: ConvertFlags,
): Promise<Conversion | undefined> {
  const { to } = flags;
  if (to === undefined) {
    if (flags.out === undefined) return undefined;
    throw new TypeError(
      `Cannot convert the SAE: expected --to beside --out: got none: give ${
        SAE_TARGETS.join(", ")
      } or gguf`,
    );
  }
  if (flags.out === undefined) {
    throw new TypeError("Cannot convert the SAE: expected --out: got none");
  }
  const out = userPath(flags.out);
  const hookPoint = hookPointOf(sae, flags);
  if (to === "gguf") return await planControlVector(sae, hookPoint, out, flags);
  checkNewFolder(out);
  const modelName = flags.model_name ?? sae.metadata.modelName;
  const metadata = {
    ...sae.metadata,
    hookPoint,
    ...(modelName !== undefined && { modelName }),
  };
  const target = to as SaeTarget;
  checkTarget(metadata, target);
  return (context) =>
    writeLayout({ sae, metadata, target, out, dtype: flags.dtype }, context);
}

/** Where an SAE reads and writes: what its files tell, or else `--hook`. */
function hookPointOf(sae: SaeFile, { hook }: ConvertFlags): HookPoint {
  if (sae.elsewhere !== undefined) {
    throw new RangeError(
      `Cannot convert SAE "${sae.name}": expected one of the residual stream: got one of ${sae.elsewhere}`,
    );
  }
  const told = sae.metadata.hookPoint;
  const asked = hook === undefined ? undefined : parseHookPoint(hook);
  const hookPoint = asked ?? told;
  if (hookPoint === undefined) {
    throw new TypeError(
      `Cannot convert SAE "${sae.name}": expected a hook point in its config: got none: name it with --hook`,
    );
  }
  // Those of open-concept-steering do not tell; what is known of them comes from --layer.
  const isTold = told !== undefined && sae.layout !== "open-concept-steering";
  if (!isTold || hookPoint === told) return hookPoint;
  throw new RangeError(
    `Cannot convert SAE "${sae.name}": expected ${hookPoint} as asked: got an SAE of ${told}: leave --hook out`,
  );
}

interface LayoutToWrite {
  readonly sae: SaeFile;
  readonly metadata: WrittenMetadata;
  readonly target: SaeTarget;
  readonly out: string;
  readonly dtype: "f32" | "bf16";
}

/** Writes an SAE in another layout, with what is known of its features. */
async function writeLayout(
  { sae, metadata, target, out, dtype }: LayoutToWrite,
  { progress, signal }: TaskContext,
): Promise<string> {
  using bar = progress({ label: "convert", unit: "MB" });
  let nBytes = 0;
  const files: string[] = [];
  const counted = async function* (
    chunks: AsyncIterable<Uint8Array>,
  ): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      signal.throwIfAborted();
      yield chunk;
      nBytes += chunk.length;
      bar.update(Math.round(nBytes / 1e6));
    }
  };
  const sha256 = await sha256Of(sae.weightsFile, signal);
  const toWrite: SaeToWrite = {
    d_model: sae.d_model,
    d_sae: sae.d_sae,
    metadata: { ...metadata, convertedFrom: { layout: sae.layout, sha256 } },
    rowsOfEncoder: (start, end) => sae.rowsOfEncoder(start, end),
    rowsOfDecoder: (start, end) => sae.rowsOfDecoder(start, end),
    b_enc: () => sae.b_enc(),
    b_dec: () => sae.b_dec(),
    threshold: () => sae.threshold(),
  };
  // An index names the weights that it is of, and rounded ones are others.
  const isExact = dtype === "f32" && target !== "sparsify";
  await writeNewFolder(out, async (write) => {
    const writeCounted: WriteFile = (file, content) => {
      files.push(file);
      const isWhole = typeof content === "string" ||
        content instanceof Uint8Array;
      return write(file, isWhole ? content : counted(content));
    };
    await copyKnowledge(sae, writeCounted, isExact);
    const options = { dtype: dtype === "f32" ? "F32" : "BF16" } as const;
    await writeSae(writeCounted, toWrite, target, options);
  });
  bar.end();
  const roundings = [
    ...(target === "sparsify" ? ["its bias is b_enc + W_enc·b_dec"] : []),
    ...(dtype === "bf16" ? ["weights are rounded to bf16"] : []),
  ];
  const size = formatBytes(nBytes);
  return [
    `wrote ${target} to ${out}: ${files.join(", ")} (${size})`,
    ...roundings,
  ].join("; ");
}

/** Copies what was measured of features, their labels, and where their weights stay the same, their index. */
async function copyKnowledge(
  sae: SaeFile,
  write: WriteFile,
  withIndex: boolean,
): Promise<void> {
  const folder = sae.beside;
  if (!folder) return;
  const names = [FEATURE_MAX_FILE, DENSITY_FILE, LABELS_FILE];
  for (const file of withIndex ? [...names, FEATURES_FILE] : names) {
    if (!await folder.has(file)) continue;
    await write(file, chunksOf(await folder.open(file)));
  }
}

async function sha256Of(source: Source, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of chunksOf(source)) {
    signal.throwIfAborted();
    hash.update(chunk);
  }
  return hash.digest("hex");
}

/** The direction of one feature, as llama.cpp adds it. */
async function planControlVector(
  sae: SaeFile,
  hookPoint: HookPoint,
  out: string,
  flags: ConvertFlags,
): Promise<Conversion> {
  if (exists(out)) {
    throw new Error(
      `Cannot write "${out}": expected nothing there: got a file or folder: choose another name with --out`,
    );
  }
  const { feature, strength, layer = hookPlace(hookPoint).layer } =
    await parseFeature(sae, flags);
  const direction = (await sae.rowsOfDecoder(feature, feature + 1))
    .map((value) => value * strength);
  const bytes = controlVectorGguf({
    layer,
    direction,
    modelHint: flags.model_hint,
    description:
      `feature ${feature} of an SAE of ${hookPoint}, times ${strength}`,
  });
  return async ({ note }) => {
    if (hookPlace(hookPoint).site === "final_norm") {
      note(
        `an SAE of ${hookPoint} writes what the final norm gives; added to the stream, it acts as in open-concept-steering`,
      );
    }
    await writeAtomic(out, bytes);
    return `wrote a control vector to ${out}: feature ${feature} times ${strength}, added behind block ${layer} at every position: llama.cpp --control-vector ${out}`;
  };
}

/** `--feature` and `--strength`, with the strength as an activation. */
async function parseFeature(
  sae: SaeFile,
  { feature, strength }: ConvertFlags,
): Promise<Intervention> {
  if (feature === undefined || strength === undefined) {
    throw new TypeError(
      `Cannot write a control vector: expected --feature and --strength: got no ${
        feature === undefined ? "--feature" : "--strength"
      }`,
    );
  }
  const labels = await readLabels(sae.beside, sae.d_sae);
  const wanted = parseIntervention(`${feature}=${strength}:add`, {
    featureOf: (label) => featureOfLabel(labels, label),
  });
  if (wanted.feature >= sae.d_sae) {
    throw new RangeError(
      `Cannot write a control vector: expected a feature from 0 to ${
        sae.d_sae - 1
      }: got ${wanted.feature}`,
    );
  }
  if (wanted.unit === "absolute") return wanted;
  const largest = (await sae.featureMax())?.[wanted.feature];
  if (largest) return { ...wanted, strength: wanted.strength * largest };
  throw new RangeError(
    `Cannot write a control vector of strength ${strength}: expected the largest activation of feature ${wanted.feature} in "${sae.name}": got ${
      largest === 0 ? "0, as it never fired" : "none"
    }: give an absolute strength`,
  );
}
