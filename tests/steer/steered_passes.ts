/**
 * Passes over a few rows, steered by a bank, and what they must give.
 * @module
 */
import type { SaeFile } from "../../core/sae_file.ts";
import type { Tensor } from "../../gpu/mod.ts";
import type {
  Intervention,
  SteeredToken,
  SteeringBank,
  SteeringSource,
} from "../../steer/interventions.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { D_MODEL, steeredReference, stream } from "./steered_rows.ts";

/** Sums of 100 products of size about 1, and activations of size about 10: f32 errs by 100 · 10 · 2⁻²⁴ ≈ 6e-5. */
export const ATOL = 1e-4;
/** The stream of every pass. */
export const X = stream();
/** Its rows. */
export const T = X.length / D_MODEL;

/** The rows of X after one layer of a pass, each obeying a set; the activations captured where asked. */
export async function pass(
  bank: SteeringBank,
  tokens: readonly (SteeredToken | number | undefined)[],
  { layer = 0, acts }: { layer?: number; acts?: Tensor } = {},
): Promise<Float32Array> {
  const gpu = await testGpu();
  using resid = gpu.floats("resid", [T, D_MODEL], X.slice());
  bank.loadPass(
    tokens.map((token) =>
      typeof token === "object" ? token : { set: token, n: 0 }
    ),
  );
  gpu.record("steer", (rec) => bank.run(rec, layer, resid, acts));
  return await gpu.read(resid);
}

/** What {@link pass} must give, row by row. */
export function want(
  sets: readonly (readonly Intervention[])[],
  weights: Record<string, Float32Array>,
): number[] {
  return sets.flatMap((set, t) => [
    ...steeredReference(
      X.subarray(t * D_MODEL, (t + 1) * D_MODEL),
      set,
      weights,
      "relu",
    ),
  ]);
}

/** One SAE at one layer. */
export const single = (
  sae: SaeFile,
  layer = 0,
): SteeringSource[] => [{ sae, layer }];
