/**
 * SAEs written for other tools. An SAE is read a run of features at a time and written as a stream, the config,
 * which makes the folder one of an SAE, last.
 *
 * What is written gives the features that were read, bit for bit where a layout says the same by the same numbers:
 * - `saelens`: SAELens 6; every architecture. What this project trains is saved so.
 * - `open-concept-steering`: relu only; its config tells sizes only, and gets ours beside them.
 * - `sparsify`: topk only. It subtracts b_dec from what it encodes, so that its bias is b_enc + W_enc·b_dec, rounded once.
 *
 * Source: SAELens 6, `SAEConfig.to_dict`; open-concept-steering, `sae_config.json`; sparsify, `SparseCoder`.
 * @module
 */
import { hookPlace, type HookPoint } from "./hook_point.ts";
import { checkJson } from "./check_json.ts";
import { CONFIG_FILES, OurMetadata, type SaeMetadata } from "./sae_config.ts";
import { parseSaeLensConfig } from "./sae_layouts/saelens.ts";
import {
  type FeatureMatrix,
  rowsTensor,
  timesVector,
  transposedTensor,
  vectorTensor,
  type WeightDtype,
} from "./sae_write_rows.ts";
import { safetensorsChunks, type TensorToWrite } from "./safetensors.ts";

export type { WeightDtype } from "./sae_write_rows.ts";

/** Writes one file of a folder, whole or not at all. */
export type WriteFile = (
  file: string,
  content: string | Uint8Array | AsyncIterable<Uint8Array>,
) => Promise<unknown>;

/** Layouts that are written. */
export const SAE_TARGETS = [
  "saelens",
  "sparsify",
  "open-concept-steering",
] as const;

/** A layout that is written. */
export type SaeTarget = typeof SAE_TARGETS[number];

/** What an SAE must tell to be written. */
export type WrittenMetadata = SaeMetadata & { readonly hookPoint: HookPoint };

/** An SAE to write: its weights, as `pre = x·W_encᵀ + b_enc` has them, and what is known of it; a `SaeFile` with a hook point is one. */
export interface SaeToWrite {
  /** Size of the residual stream. */
  readonly d_model: number;
  /** Number of features. */
  readonly d_sae: number;
  /** What is known of it. */
  readonly metadata: WrittenMetadata;
  /** `[end - start, d_model]`: what features [start, end) read. */
  rowsOfEncoder(start: number, end: number): Promise<Float32Array>;
  /** `[end - start, d_model]`: what features [start, end) write. */
  rowsOfDecoder(start: number, end: number): Promise<Float32Array>;
  /** `[d_sae]` */
  b_enc(): Promise<Float32Array>;
  /** `[d_model]` */
  b_dec(): Promise<Float32Array>;
  /** What an activation must exceed, `[d_sae]`; undefined but for jumprelu. */
  threshold(): Promise<Float32Array | undefined>;
}

/** How an SAE is written. */
export interface WriteSaeOptions {
  /** Element type of the weights; F32, which is exact, when absent. */
  readonly dtype?: WeightDtype;
  /** Memory that a part of a transposed matrix may take; the SAE is read once for each. */
  readonly blockBytes?: number;
}

/** File of the weights in the layouts that take its name from SAELens. */
export const WEIGHTS_FILE = "sae_weights.safetensors";

const BLOCK_BYTES = 128 * 2 ** 20;

/** A folder as it is going to be written. */
interface SaeFiles {
  readonly weightsFile: string;
  readonly tensors: readonly TensorToWrite[];
  readonly configFile: string;
  readonly config: Readonly<Record<string, unknown>>;
}

/** Architectures that a layout can say. */
const ARCHITECTURES: Readonly<Record<SaeTarget, readonly string[]>> = {
  "saelens": ["relu", "topk", "jumprelu"],
  "sparsify": ["topk"],
  "open-concept-steering": ["relu"],
};

/**
 * Checks that a layout can say what an SAE is, before anything is read or written.
 * @throws {TypeError} If it cannot: names the layouts that can.
 */
export function checkTarget(
  { architecture }: Pick<SaeMetadata, "architecture">,
  target: SaeTarget,
): void {
  const can = ARCHITECTURES[target];
  if (can.includes(architecture)) return;
  const others = SAE_TARGETS.filter((other) =>
    ARCHITECTURES[other].includes(architecture)
  );
  throw new TypeError(
    `Cannot write the SAE for ${target}: expected ${
      can.join(" or ")
    }, as its files have nothing else: got ${architecture}: write ${
      others.join(" or ")
    }`,
  );
}

/**
 * Writes an SAE in a layout.
 * @throws {TypeError} If the layout has no such architecture; nothing is written then.
 * @throws {SyntaxError} If the metadata cannot be read back; nothing is written then.
 * @throws {RangeError} If a value is not finite, or too large for the element type. What was written so far has no config.
 */
export async function writeSae(
  write: WriteFile,
  sae: SaeToWrite,
  target: SaeTarget,
  options: WriteSaeOptions = {},
): Promise<void> {
  checkTarget(sae.metadata, target);
  const files = await FILES[target](sae, {
    dtype: options.dtype ?? "F32",
    blockBytes: options.blockBytes ?? BLOCK_BYTES,
  });
  await write(files.weightsFile, safetensorsChunks(files.tensors));
  await write(files.configFile, JSON.stringify(files.config, null, 2) + "\n");
}

const FILES: Readonly<
  Record<
    SaeTarget,
    (sae: SaeToWrite, options: Required<WriteSaeOptions>) => Promise<SaeFiles>
  >
> = {
  "saelens": saeLensFiles,
  "sparsify": sparsifyFiles,
  "open-concept-steering": openConceptSteeringFiles,
};

/** Both matrices of an SAE. */
function matricesOf(
  sae: SaeToWrite,
): { W_enc: FeatureMatrix; W_dec: FeatureMatrix } {
  const { d_sae, d_model } = sae;
  return {
    W_enc: { d_sae, d_model, read: (a, b) => sae.rowsOfEncoder(a, b) },
    W_dec: { d_sae, d_model, read: (a, b) => sae.rowsOfDecoder(a, b) },
  };
}

async function saeLensFiles(
  sae: SaeToWrite,
  { dtype, blockBytes }: Required<WriteSaeOptions>,
): Promise<SaeFiles> {
  const { W_enc, W_dec } = matricesOf(sae);
  const threshold = await sae.threshold();
  const config = saeLensConfig(sae, dtype);
  parseSaeLensConfig(config, CONFIG_FILES.saelens);
  return {
    weightsFile: WEIGHTS_FILE,
    tensors: [
      transposedTensor("W_enc", dtype, W_enc, blockBytes),
      vectorTensor("b_enc", dtype, await sae.b_enc()),
      rowsTensor("W_dec", dtype, W_dec),
      vectorTensor("b_dec", dtype, await sae.b_dec()),
      ...(threshold ? [vectorTensor("threshold", dtype, threshold)] : []),
    ],
    configFile: CONFIG_FILES.saelens,
    config,
  };
}

async function openConceptSteeringFiles(
  sae: SaeToWrite,
  { dtype, blockBytes }: Required<WriteSaeOptions>,
): Promise<SaeFiles> {
  const { W_enc, W_dec } = matricesOf(sae);
  return {
    weightsFile: WEIGHTS_FILE,
    tensors: [
      rowsTensor("encode.weight", dtype, W_enc),
      vectorTensor("encode.bias", dtype, await sae.b_enc()),
      transposedTensor("decode.weight", dtype, W_dec, blockBytes),
      vectorTensor("decode.bias", dtype, await sae.b_dec()),
    ],
    configFile: CONFIG_FILES["open-concept-steering"],
    config: {
      input_size: sae.d_model,
      hidden_size: sae.d_sae,
      open_concept_steering: ourMetadata(sae.metadata),
    },
  };
}

async function sparsifyFiles(
  sae: SaeToWrite,
  { dtype }: Required<WriteSaeOptions>,
): Promise<SaeFiles> {
  const { d_model, d_sae, metadata } = sae;
  const { W_enc, W_dec } = matricesOf(sae);
  const [b_enc, b_dec] = [await sae.b_enc(), await sae.b_dec()];
  const W_enc_b_dec = await timesVector(W_enc, b_dec);
  const bias = b_enc.map((value, i) => value + W_enc_b_dec[i]!);
  return {
    weightsFile: "sae.safetensors",
    tensors: [
      rowsTensor("encoder.weight", dtype, W_enc),
      vectorTensor("encoder.bias", dtype, bias),
      rowsTensor("W_dec", dtype, W_dec),
      vectorTensor("b_dec", dtype, b_dec),
    ],
    configFile: CONFIG_FILES.sparsify,
    config: {
      activation: "topk",
      // Not used where the number of latents is told; a whole number by its form.
      expansion_factor: Math.max(1, Math.round(d_sae / d_model)),
      // Rows keep their norms, which say which features are the k largest.
      normalize_decoder: false,
      num_latents: d_sae,
      k: metadata.k,
      multi_topk: false,
      skip_connection: false,
      transcode: false,
      d_in: d_model,
      open_concept_steering: ourMetadata(metadata),
    },
  };
}

/** What the layouts of others have no place for; their readers pass over it. */
function ourMetadata(
  { architecture: _, k: _k, ...ours }: WrittenMetadata,
): Readonly<Record<string, unknown>> {
  const written = { formatVersion: 1, ...ours };
  checkJson(OurMetadata, written, "open_concept_steering");
  return written;
}

/** The `cfg.json` of SAELens 6, with ours in the metadata. */
export function saeLensConfig(
  { d_model, d_sae, metadata }: Pick<
    SaeToWrite,
    "d_model" | "d_sae" | "metadata"
  >,
  dtype: WeightDtype,
): Readonly<Record<string, unknown>> {
  const { modelName, contextLength, ...rest } = metadata;
  const { architecture, k, hookPoint, text } = metadata;
  const { site, layer } = hookPlace(hookPoint);
  return {
    architecture: architecture === "relu" ? "standard" : architecture,
    ...(architecture === "topk"
      ? { k, rescale_acts_by_decoder_norm: false }
      : {}),
    d_in: d_model,
    d_sae,
    dtype: dtype === "F32" ? "float32" : "bfloat16",
    device: "cpu",
    apply_b_dec_to_input: false,
    normalize_activations: "none",
    reshape_activations: "none",
    metadata: {
      // Without a version from 6 on, SAELens takes the config for an older form.
      sae_lens_version: "6.0.0",
      sae_lens_training_version: null,
      model_name: modelName ?? null,
      // TransformerLens has no name for the final norm read in the middle.
      hook_name: site === "resid_post"
        ? `blocks.${layer}.hook_resid_post`
        : hookPoint,
      hook_head_index: null,
      context_size: contextLength ?? null,
      prepend_bos: true,
      dataset_path: text ?? null,
      open_concept_steering: ourMetadata(rest),
    },
  };
}
