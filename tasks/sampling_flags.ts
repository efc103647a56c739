/**
 * Flags that say how the next token is chosen.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import type { ModelFolder } from "../core/model_folder.ts";
import { checkSamplingSettings, type Sampling } from "../steer/sampling.ts";

/** How the next token is chosen. */
export const SAMPLING_FLAGS = {
  greedy: {
    default: false,
    help: "always the likeliest token, as temperature 0",
  },
  temperature: { default: 0.7, min: 0, help: "of sampling" },
  top_p: {
    default: 0.9,
    min: 0,
    max: 1,
    help: "keep the likeliest tokens that together reach this probability",
  },
  top_k: {
    default: 0,
    integer: true,
    min: 0,
    max: 2 ** 32 - 1,
    help: "keep this many likeliest tokens; 0 keeps all",
  },
  min_p: {
    default: 0,
    min: 0,
    max: 1,
    help:
      "keep tokens at least this many times as likely as the likeliest; 0 keeps all",
  },
  repetition_penalty: {
    default: 1,
    min: 0,
    help:
      "above 1 makes tokens of the prompt and the reply less likely, as Hugging Face has it",
  },
  presence_penalty: {
    default: 0,
    help: "subtracted from the logits of tokens that the reply holds",
  },
  frequency_penalty: {
    default: 0,
    help: "subtracted from a token's logit each time that the reply holds it",
  },
  logit_bias: {
    type: "strings",
    help:
      "ID=BIAS, added to the logit of a token id, from -100 to 100; ID=-inf forbids the token",
  },
  seed: {
    default: 0,
    integer: true,
    min: 0,
    max: 2 ** 32 - 1,
    help: "seed of sampling",
  },
} as const satisfies FlagTable;

/** Values of {@link SAMPLING_FLAGS}. */
export type SamplingFlags = ConfigOf<typeof SAMPLING_FLAGS>;

/**
 * How tokens are chosen.
 * @throws {SyntaxError} If a bias has another form than `758=5`.
 * @throws {RangeError} If a number is out of range, or a token not in the vocabulary.
 */
export function samplingOf(
  flags: SamplingFlags,
  { config }: ModelFolder,
): Sampling {
  const bias = biasOf(flags.logit_bias);
  const sampling = {
    temperature: flags.greedy ? 0 : flags.temperature,
    topP: flags.top_p,
    topK: flags.top_k,
    minP: flags.min_p,
    repetitionPenalty: flags.repetition_penalty,
    presencePenalty: flags.presence_penalty,
    frequencyPenalty: flags.frequency_penalty,
    seed: flags.seed,
    ...(bias.size > 0 ? { logitBias: bias } : {}),
  };
  checkSamplingSettings(sampling, config.vocab_size);
  return sampling;
}

/** Reads `758=5` and `758=-inf`. */
function biasOf(texts: readonly string[]): Map<number, number> {
  const bias = new Map<number, number>();
  for (const text of texts) {
    const match = /^(\d+)=([+-]?(?:\d+\.?\d*|\.\d+)|-inf)$/.exec(text);
    if (!match) {
      throw new SyntaxError(
        `Cannot read --logit-bias "${text}": expected ID=BIAS, such as 758=5 or 758=-inf`,
      );
    }
    const [token, value] = [Number(match[1]), match[2]!];
    if (bias.has(token)) {
      throw new SyntaxError(
        `Cannot read --logit-bias "${text}": expected token ${token} once: got it twice`,
      );
    }
    bias.set(token, value === "-inf" ? -Infinity : Number(value));
  }
  return bias;
}

/** Sampling as `--json` prints it; a bias of -∞ as the text "-inf", as it is typed. */
export function samplingReport(
  sampling: Sampling,
): Readonly<Record<string, unknown>> {
  const bias = [...sampling.logitBias ?? []].map(([token, value]) => [
    token,
    value === -Infinity ? "-inf" : value,
  ]);
  return {
    temperature: sampling.temperature,
    top_p: sampling.topP,
    top_k: sampling.topK,
    min_p: sampling.minP,
    repetition_penalty: sampling.repetitionPenalty,
    presence_penalty: sampling.presencePenalty,
    frequency_penalty: sampling.frequencyPenalty,
    logit_bias: Object.fromEntries(bias),
    seed: sampling.seed,
  };
}
