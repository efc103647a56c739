import { Rng } from "../../core/rng.ts";
import {
  foldSae,
  type SaeArchitecture,
  type SaeToSave,
  type SaeWeights,
  saveSae,
  type WriteFile,
} from "../../core/sae_file.ts";
import type { SaeRows } from "../../core/sae.ts";
import { type Folder, memoryFolder } from "../../core/source.ts";

/** Metadata with every field. */
export const METADATA: SaeToSave["metadata"] = {
  architecture: "relu",
  hookPoint: "resid_post[3]",
  modelName: "tiny-olmo2",
  modelFingerprint: "abc",
  contextLength: 256,
  text: "storybook:101:3000",
  inputScale: 0.4,
  nTokensTrained: 1000,
  recipe: { l1: 1, steps: [1, 2] },
};

/** Normal weights, not folded. */
export function randomWeights(
  seed: number,
  d_model: number,
  d_sae: number,
): SaeWeights {
  const rng = new Rng(seed);
  const normal = (n: number): Float32Array =>
    Float32Array.from({ length: n }, () => rng.normal());
  return {
    d_model,
    d_sae,
    W_enc: normal(d_sae * d_model),
    b_enc: normal(d_sae),
    W_dec: normal(d_sae * d_model),
    b_dec: normal(d_model),
  };
}

/** Weights in memory as an SAE is loaded from. */
export function rowsOfWeights(
  weights: SaeWeights,
  rest: Pick<SaeRows, "architecture" | "k"> = {},
): SaeRows {
  const { d_model, d_sae } = weights;
  const rows = (W: Float32Array, start: number, end: number) =>
    Promise.resolve(
      Float32Array.from(W.subarray(start * d_model, end * d_model)),
    );
  return {
    d_model,
    d_sae,
    ...rest,
    rowsOfEncoder: (start, end) => rows(weights.W_enc, start, end),
    rowsOfDecoder: (start, end) => rows(weights.W_dec, start, end),
    b_enc: () => Promise.resolve(Float32Array.from(weights.b_enc)),
    b_dec: () => Promise.resolve(Float32Array.from(weights.b_dec)),
    threshold: () =>
      Promise.resolve(
        weights.threshold && Float32Array.from(weights.threshold),
      ),
  };
}

/** What an architecture needs beside the weights of a relu, for weights that are not folded. */
export function withArchitecture(
  architecture: SaeArchitecture,
  weights: SaeWeights,
): { weights: SaeWeights; k?: number } {
  if (architecture === "topk") return { weights, k: 4 };
  if (architecture === "relu") return { weights };
  const threshold = weights.b_enc.map((bias) => 0.1 + 2 * Math.abs(bias));
  return { weights: { ...weights, threshold } };
}

/** All architectures that are run. */
export const ARCHITECTURES = ["relu", "topk", "jumprelu"] as const;

/** A folder in memory, with the order in which its files were written. */
export function writableFolder(): {
  folder: () => Folder;
  files: Record<string, Uint8Array>;
  write: WriteFile;
} {
  const files: Record<string, Uint8Array> = {};
  const write: WriteFile = async (file, content) => {
    const chunks = typeof content === "string"
      ? [new TextEncoder().encode(content)]
      : content instanceof Uint8Array
      ? [content]
      : await Array.fromAsync(content);
    files[file] = new Uint8Array(
      await new Blob(chunks.map((chunk) => chunk.slice())).arrayBuffer(),
    );
  };
  return { folder: () => memoryFolder("sae", files), files, write };
}

/** A small SAE, folded and saved. */
export async function savedSae(
  d_model = 5,
  d_sae = 11,
): Promise<ReturnType<typeof writableFolder> & { weights: SaeWeights }> {
  const weights = randomWeights(1, d_model, d_sae);
  foldSae(weights, METADATA.inputScale);
  const saved = writableFolder();
  await saveSae(saved.write, { weights, metadata: METADATA });
  return { ...saved, weights };
}
