/**
 * How the next token is chosen: the settings, their limits, and how kernels read them.
 * @module
 */

/**
 * How the next token is chosen. Logits are changed in this order: bias, repetition
 * penalty, presence and frequency penalties, temperature, top-k, top-p, min-p; Hugging Face
 * has the same order (and no presence and frequency penalties).
 */
export interface Sampling {
  /** Logits are divided by it; 0 is greedy: always the likeliest token. */
  readonly temperature: number;
  /** Keep this many likeliest tokens; 0 keeps all. */
  readonly topK: number;
  /** Keep the likeliest tokens that together reach this probability; 1 keeps all. */
  readonly topP: number;
  /** Keep tokens at least this many times as likely as the likeliest, from 0 to 1; 0, as when absent, keeps all. */
  readonly minP?: number;
  /**
   * Logits of tokens that the prompt or the reply holds are divided by it where they are positive,
   * else multiplied; above 0, 1 when absent. Source: Hugging Face `RepetitionPenaltyLogitsProcessor`.
   */
  readonly repetitionPenalty?: number;
  /** Subtracted from the logits of tokens that the reply holds; 0 when absent. Source: OpenAI's API. */
  readonly presencePenalty?: number;
  /** Subtracted from a token's logit once for each time that the reply holds it; 0 when absent. Source: OpenAI's API. */
  readonly frequencyPenalty?: number;
  /** Added to the logits of these token ids, from -100 to 100; -Infinity forbids a token. None when absent. */
  readonly logitBias?: ReadonlyMap<number, number>;
  /**
   * From 0 to 2³² - 1. Equal seeds give equal random numbers, whatever else is generated beside them, and so equal replies
   * to equal prompts; but sums over a batch of another size may be rounded otherwise, so that near ties may fall otherwise.
   */
  readonly seed: number;
}

/** Always the likeliest token. */
export const GREEDY: Sampling = { temperature: 0, topK: 0, topP: 1, seed: 0 };

/** The largest bias of a logit. */
const MOST_BIAS = 100;

/**
 * Checks settings.
 * @throws {RangeError} If a number is out of range, a token is not in the vocabulary, or all are forbidden.
 */
export function checkSamplingSettings(
  sampling: Sampling,
  vocab: number,
): void {
  const { temperature, topK, topP, seed } = sampling;
  const { minP = 0, repetitionPenalty = 1 } = sampling;
  const { presencePenalty = 0, frequencyPenalty = 0 } = sampling;
  const isWord = (n: number) => Number.isInteger(n) && n >= 0 && n < 2 ** 32;
  const isShare = (x: number) => x >= 0 && x <= 1;
  const WORD = "a whole number from 0 to 2³² - 1";
  const SHARE = "a number from 0 to 1";
  const FINITE = "a finite number";
  const rules: readonly [string, number, boolean, string][] = [
    [
      "temperature",
      temperature,
      temperature >= 0 && temperature < Infinity,
      "a finite number, 0 or more",
    ],
    ["top-k", topK, isWord(topK), WORD],
    ["top-p", topP, isShare(topP), SHARE],
    ["min-p", minP, isShare(minP), SHARE],
    [
      "a repetition penalty",
      repetitionPenalty,
      repetitionPenalty > 0 && repetitionPenalty < Infinity,
      "a finite number above 0",
    ],
    [
      "a presence penalty",
      presencePenalty,
      Number.isFinite(presencePenalty),
      FINITE,
    ],
    [
      "a frequency penalty",
      frequencyPenalty,
      Number.isFinite(frequencyPenalty),
      FINITE,
    ],
    ["seed", seed, isWord(seed), WORD],
  ];
  for (const [name, value, isFine, expected] of rules) {
    if (isFine) continue;
    throw new RangeError(
      `Cannot sample with ${name} of ${value}: expected ${expected}`,
    );
  }
  if (sampling.logitBias) checkBias(sampling.logitBias, vocab);
}

function checkBias(bias: ReadonlyMap<number, number>, vocab: number): void {
  let nForbidden = 0;
  for (const [token, value] of bias) {
    if (!(Number.isInteger(token) && token >= 0 && token < vocab)) {
      throw new RangeError(
        `Cannot bias token ${token}: expected an id from 0 to ${vocab - 1}`,
      );
    }
    if (value === -Infinity) nForbidden++;
    else if (!(Math.abs(value) <= MOST_BIAS)) {
      throw new RangeError(
        `Cannot bias token ${token} by ${value}: expected a number from -${MOST_BIAS} to ${MOST_BIAS}, or -Infinity`,
      );
    }
  }
  if (nForbidden < vocab) return;
  throw new RangeError(
    `Cannot sample with all ${vocab} tokens forbidden: expected one that is not: leave it out of the logit bias`,
  );
}

/** Whether some tokens are left out. */
export function hasFilter(
  { temperature, topK, topP, minP = 0 }: Sampling,
): boolean {
  return temperature > 0 && (topK > 0 || topP < 1 || minP > 0);
}

/** Whether logits depend on the tokens before. */
export function hasPenalty(sampling: Sampling): boolean {
  return (sampling.repetitionPenalty ?? 1) !== 1 ||
    (sampling.presencePenalty ?? 0) !== 0 ||
    (sampling.frequencyPenalty ?? 0) !== 0;
}

/** The sampling kernels' `settings`, u32 `[n, 8]`: one row for each choice of a token, and how many its reply has so far. */
export function samplingSettings(
  samplings: readonly Sampling[],
  steps: readonly number[],
): DataView<ArrayBuffer> {
  const settings = new DataView(new ArrayBuffer(32 * samplings.length));
  for (const [i, sampling] of samplings.entries()) {
    const { temperature, topP, minP = 0, topK, seed } = sampling;
    const at = 32 * i;
    settings.setFloat32(at, temperature, true);
    settings.setFloat32(at + 4, topP, true);
    settings.setFloat32(at + 8, minP, true);
    settings.setUint32(at + 12, topK, true);
    settings.setUint32(at + 16, seed, true);
    settings.setUint32(at + 20, steps[i]!, true);
  }
  return settings;
}
