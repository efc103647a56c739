import { Rng } from "../../core/rng.ts";
import {
  foldSae,
  type SaeToSave,
  type SaeWeights,
  saveSae,
  type WriteFile,
} from "../../core/sae_file.ts";
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
