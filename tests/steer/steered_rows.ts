/**
 * Small SAEs to steer with, and rows of the stream after steering.
 * @module
 */
import {
  SaeFile,
  type SaeMetadata,
  saveFeatureMeasurements,
  saveSae,
} from "../../core/sae_file.ts";
import type { Folder } from "../../core/source.ts";
import type { Tensor } from "../../gpu/mod.ts";
import {
  type Intervention,
  type SteerEncoding,
  SteeringBank,
} from "../../steer/interventions.ts";
import { randomNormal } from "../assert_close.ts";
import { METADATA, savedSae, writableFolder } from "../core/sae_for_tests.ts";
import { testGpu } from "../gpu_for_tests.ts";

/** Not a multiple of the workgroup's 64 lanes, and more than one round of them. */
export const D_MODEL = 100;
/** Features. */
export const D_SAE = 40;
const T = 3;
/** feature_max of the SAEs. */
export const MAXIMUM = 2.5;

/** An SAE with feature_max 2.5 everywhere, but for feature 7, which never fired. */
export async function openSae(
  { measured = true } = {},
): Promise<
  { sae: SaeFile; folder: Folder; weights: Record<string, Float32Array> }
> {
  const { folder, write, weights } = await savedSae(D_MODEL, D_SAE);
  if (measured) {
    const featureMax = new Float32Array(D_SAE).fill(MAXIMUM);
    featureMax[7] = 0;
    const density = new Float32Array(D_SAE).fill(0.1);
    await saveFeatureMeasurements(write, { featureMax, density });
  }
  const { W_enc, b_enc, W_dec } = weights;
  return {
    sae: await SaeFile.open(folder()),
    folder: folder(),
    weights: { W_enc, b_enc, W_dec },
  };
}

/** An intervention by an absolute strength. */
export const absolute = (
  feature: number,
  mode: Intervention["mode"],
  strength: number,
): Intervention => ({ feature, mode, strength, unit: "absolute" });

/** The SAE of {@link openSae} with other metadata, and thresholds if it is a jumprelu. */
export async function openOther(
  metadata: Pick<SaeMetadata, "architecture" | "k" | "inferenceThreshold">,
  threshold?: Float32Array,
): Promise<SaeFile> {
  const { weights } = await savedSae(D_MODEL, D_SAE);
  const { folder, write } = writableFolder();
  await saveSae(write, {
    weights: { ...weights, ...(threshold && { threshold }) },
    metadata: { ...METADATA, ...metadata },
  });
  return await SaeFile.open(folder());
}

/** Rows of the stream after steering: row t by set `sets[t]`. */
export async function steered(
  sae: SaeFile,
  x: Float32Array<ArrayBuffer>,
  sets: readonly (readonly Intervention[])[],
  setOfRow: readonly (number | undefined)[],
  encoding: SteerEncoding = "relu",
): Promise<Float32Array> {
  const gpu = await testGpu();
  using bank = await SteeringBank.load(gpu, sae, sets, { layer: 0, encoding });
  using resid: Tensor = gpu.floats("resid", [setOfRow.length, D_MODEL], x);
  bank.loadPass(setOfRow.map((set) => ({ set, n: 0 })));
  gpu.record("steer", (rec) => bank.run(rec, 0, resid));
  return await gpu.read(resid);
}

/** The stream, and features that fire and that do not on its first row. */
export const stream = (): Float32Array<ArrayBuffer> =>
  randomNormal(T * D_MODEL, 5);

/** x + Σ (what the mode makes of act − act) · W_dec[i], in float64. */
export function steeredReference(
  x: Float32Array,
  set: readonly Intervention[],
  weights: Record<string, Float32Array>,
  encoding: SteerEncoding,
): Float64Array {
  const { W_enc, b_enc, W_dec } = weights;
  const y = Float64Array.from(x);
  for (let t = 0; t < x.length / D_MODEL; t++) {
    for (const { feature, mode, strength } of set) {
      let act = b_enc![feature]!;
      for (let j = 0; j < D_MODEL; j++) {
        act += W_enc![feature * D_MODEL + j]! * x[t * D_MODEL + j]!;
      }
      if (encoding === "relu") act = Math.max(act, 0);
      const wanted = {
        clamp: strength,
        add: act + strength,
        ablate: 0,
        min: Math.max(act, strength),
        scale: act * strength,
      }[mode];
      for (let j = 0; j < D_MODEL; j++) {
        y[t * D_MODEL + j]! += (wanted - act) * W_dec![feature * D_MODEL + j]!;
      }
    }
  }
  return y;
}
