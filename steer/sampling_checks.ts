import { type Check, checkOf } from "../core/check.ts";
import type { Safetensors } from "../core/safetensors.ts";
import type { Gpu } from "../gpu/mod.ts";
import { Sampler } from "./sampler.ts";
import type { Sampling } from "./sampling.ts";

/** Largest difference of a probability. */
const LIMIT = 1e-6;

/** A tensor's name: `probs.t0.7.p0.9.k0`, and with more settings `probs.t0.7.p0.9.k0.m0.1.r1.3.biased`. */
const NAME =
  /^probs\.t([\d.]+)\.p([\d.]+)\.k(\d+)(?:\.m([\d.]+))?(?:\.r([\d.]+))?(\.biased)?$/;

/**
 * Compares sampling probabilities with a file that holds `logits` f32 `[R, vocab]` and what
 * Hugging Face makes of them: `probs.t0.7.p0.9.k0` for settings of temperature, top-p and top-k,
 * maybe followed by `.m0.1` (min-p), `.r1.3` (repetition penalty, after the tokens `previous` i32
 * `[R, n]`) and `.biased` (by `biases` f32 `[n, 2]`, pairs of a token and its bias).
 * @throws {Error} If the file holds nothing to compare.
 */
export async function checkSampling(
  gpu: Gpu,
  expected: Safetensors,
): Promise<Check[]> {
  const logits = await expected.floats("logits");
  const shape = expected.info("logits").shape as [number, number];
  const before = await previousTokens(expected, shape[0]);
  const bias = await biases(expected);
  const checks: Check[] = [];
  for (const name of expected.tensors.keys()) {
    const match = NAME.exec(name);
    if (!match) continue;
    const number = (i: number, absent: number) => Number(match[i] ?? absent);
    const sampling = {
      temperature: number(1, 1),
      topP: number(2, 1),
      topK: number(3, 0),
      minP: number(4, 0),
      repetitionPenalty: number(5, 1),
      seed: 0,
      ...(match[6] === undefined ? {} : { logitBias: bias }),
    };
    const got = await distributions(gpu, logits, before, sampling);
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

/** What tokens are drawn with, `[R, vocab]`, after prompts of these tokens. */
async function distributions(
  gpu: Gpu,
  values: Float32Array<ArrayBuffer>,
  prompts: readonly (readonly number[])[],
  sampling: Sampling,
): Promise<Float32Array> {
  const R = prompts.length;
  const vocab = values.length / R;
  using sampler = new Sampler(gpu, vocab, R);
  using logits = gpu.floats("logits", [R, vocab], values);
  using probs = gpu.floats("probs", [R, vocab], values.map(() => NaN));
  using tokens = gpu.tensor("tokens", "u32", [R]);
  for (const [r, prompt] of prompts.entries()) {
    sampler.begin(r, sampling, prompt);
  }
  gpu.record("sampling", (rec) => {
    const rows = [...prompts.keys()];
    sampler.sample(rec, logits, rows, rows.map(() => 0), tokens);
    sampler.probs(rec, logits, probs);
  });
  return await gpu.read(probs);
}

/** Tokens before each row; none where the file has none. */
async function previousTokens(
  expected: Safetensors,
  R: number,
): Promise<number[][]> {
  const ids = expected.tensors.has("previous")
    ? [...await expected.ints("previous")]
    : [];
  const n = ids.length / R;
  return Array.from({ length: R }, (_, r) => ids.slice(n * r, n * (r + 1)));
}

/** Biases by token; none where the file has none. */
async function biases(expected: Safetensors): Promise<Map<number, number>> {
  const bias = new Map<number, number>();
  if (!expected.tensors.has("biases")) return bias;
  const values = await expected.floats("biases");
  for (let i = 0; i < values.length; i += 2) {
    bias.set(values[i]!, values[i + 1]!);
  }
  return bias;
}
