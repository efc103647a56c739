import { type Check, checkOf } from "../core/check.ts";
import type { Safetensors } from "../core/safetensors.ts";
import type { Gpu } from "../gpu/mod.ts";
import { sampleFilter } from "../kernels/sample_filter.ts";
import { samplingSettings } from "./sampling.ts";

/** Largest difference of a probability. */
const LIMIT = 1e-6;

/**
 * Compares sampling probabilities with a file that holds `logits` and, for settings
 * of temperature, top-p and top-k, `probs.t0.7.p0.9.k0` as Hugging Face computes them.
 * @throws {Error} If the file holds nothing to compare.
 */
export async function checkSampling(
  gpu: Gpu,
  expected: Safetensors,
): Promise<Check[]> {
  const [R, vocab] = expected.info("logits").shape as [number, number];
  using logits = gpu.floats(
    "logits",
    [R, vocab],
    await expected.floats("logits"),
  );
  using probs = gpu.tensor("probs", "f32", [R, vocab]);
  using settings = gpu.tensor("sampling", "u32", [R, 8]);
  const checks: Check[] = [];
  for (const name of expected.tensors.keys()) {
    const match = /^probs\.t([\d.]+)\.p([\d.]+)\.k(\d+)$/.exec(name);
    if (!match) continue;
    const [temperature, topP, topK] = match.slice(1).map(Number) as [
      number,
      number,
      number,
    ];
    const sampling = { temperature, topP, topK, seed: 0 };
    settings.write(samplingSettings(Array(R).fill(sampling), Array(R).fill(0)));
    probs.write(new Float32Array(R * vocab).fill(NaN));
    gpu.record(
      "sampling",
      (rec) => sampleFilter.run(rec, { logits, settings, probs }),
    );
    const got = await gpu.read(probs);
    const want = await expected.floats(name);
    const worst = want.reduce((most, p, i) => {
      const difference = Math.abs(p - got[i]!);
      return Number.isNaN(difference) ? Infinity : Math.max(most, difference);
    }, 0);
    checks.push(checkOf(`${name}, largest difference`, worst, LIMIT));
  }
  if (checks.length > 0) return checks;
  throw new Error(
    `Cannot verify sampling against "${expected.source.name}": expected tensors such as probs.t0.7.p0.9.k0: got none`,
  );
}
