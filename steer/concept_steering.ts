import type { Olmo2 } from "../core/olmo2.ts";
import type { SaeFile } from "../core/sae_file.ts";
import { scoreSequences } from "../core/score.ts";
import { type Concept, mentionsConcept } from "../core/storybook.ts";
import type { Tokenizer } from "../core/tokenizer.ts";
import { generate, type Sampling } from "./generate.ts";
import { type Intervention, SteeringBank } from "./interventions.ts";

/** One way to steer towards a concept; no interventions: the model as it is. */
export interface SteeringTrial {
  readonly concept: Concept;
  readonly interventions: readonly Intervention[];
}

/** What a trial gave. */
export interface TrialResult {
  /** Share of replies that hold a keyword of the concept. */
  readonly conceptRate: number;
  /** exp(mean nats a token) over all tokens of the replies after their prompts, under the unsteered model. */
  readonly perplexity: number;
  /** One reply a question. */
  readonly replies: readonly string[];
}

/** Options of {@link runTrials}. */
export interface TrialOptions {
  /** Block after which the stream is steered. */
  readonly layer: number;
  /** Asked of every trial, through the chat template. */
  readonly questions: readonly string[];
  /** Most tokens of a reply. */
  readonly maxNewTokens: number;
  /** Sampling; each reply gets a seed of its own from this one. */
  readonly sampling: Sampling;
  /** Called as trials are done. */
  readonly onProgress?: (nDone: number) => void;
  readonly signal?: AbortSignal;
}

/** Replies that are generated in one batch. */
const BATCH = 160;

/**
 * Generates replies for every trial and question, and measures them.
 * @throws The signal's reason, before the next batch.
 */
export async function runTrials(
  model: Olmo2,
  tokenizer: Tokenizer,
  sae: SaeFile,
  trials: readonly SteeringTrial[],
  options: TrialOptions,
): Promise<TrialResult[]> {
  const { questions, sampling, signal } = options;
  const prompts = questions.map((content) => {
    const text = tokenizer.applyChatTemplate([{ role: "user", content }], {
      addGenerationPrompt: true,
    });
    return tokenizer.encode(text, { addSpecial: false });
  });
  const results: TrialResult[] = [];
  const atOnce = Math.max(1, Math.floor(BATCH / questions.length));
  for (let start = 0; start < trials.length; start += atOnce) {
    signal?.throwIfAborted();
    const some = trials.slice(start, start + atOnce);
    const { replies, nats } = await runBatch(model, sae, some, prompts, {
      ...options,
      sampling: { ...sampling, seed: sampling.seed + 1000 * start },
    });
    for (const [i, { concept }] of some.entries()) {
      const [first, last] = [i * questions.length, (i + 1) * questions.length];
      results.push(resultOf(
        concept,
        replies.slice(first, last).map((ids) => tokenizer.decode(ids)),
        nats.slice(first, last),
      ));
    }
    options.onProgress?.(results.length);
  }
  return results;
}

/** Replies of some trials to all prompts, trial by trial, with the nats of their tokens. */
async function runBatch(
  model: Olmo2,
  sae: SaeFile,
  trials: readonly SteeringTrial[],
  prompts: readonly (readonly number[])[],
  { layer, maxNewTokens, sampling }: TrialOptions,
): Promise<{ replies: number[][]; nats: Float32Array[] }> {
  using steering = await SteeringBank.load(
    model.gpu,
    sae,
    trials.map(({ interventions }) => interventions),
    { layer },
  );
  const requests = trials.flatMap((_, steeringSet) =>
    prompts.map((prompt, q) => ({
      prompt,
      steeringSet,
      sampling: { ...sampling, seed: sampling.seed + 1000 * steeringSet + q },
    }))
  );
  const replies = await generate(model, requests, { maxNewTokens, steering });
  const asked = requests.map(({ prompt }) => prompt);
  return { replies, nats: await replyNats(model, asked, replies) };
}

function resultOf(
  concept: Concept,
  replies: readonly string[],
  nats: readonly Float32Array[],
): TrialResult {
  const hits = replies.filter((text) => mentionsConcept(text, concept));
  return {
    conceptRate: hits.length / replies.length,
    perplexity: Math.exp(mean(nats.flatMap((values) => [...values]))),
    replies,
  };
}

/** Nats of each token of each reply after its prompt. */
async function replyNats(
  model: Olmo2,
  prompts: readonly (readonly number[])[],
  replies: readonly (readonly number[])[],
): Promise<Float32Array[]> {
  const sequences = prompts.map((prompt, i) => [...prompt, ...replies[i]!]);
  const nats = await scoreSequences(model, sequences);
  return nats.map((values, i) => values.subarray(prompts[i]!.length - 1));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** A strength that was tried, and what it gave. */
export interface StrengthTried {
  /** In multiples of the feature's maximum activation. */
  readonly strength: number;
  readonly conceptRate: number;
  readonly perplexity: number;
}

/**
 * The strength with the highest concept rate among those whose perplexity stays within
 * `maxPerplexity`; the weakest where none does. Equal rates: the weaker one.
 */
export function chooseStrength(
  tried: readonly StrengthTried[],
  maxPerplexity: number,
): StrengthTried {
  const ordered = [...tried].sort((a, b) => a.strength - b.strength);
  const first = ordered[0];
  if (!first) {
    throw new RangeError(
      "Cannot choose a strength: expected at least one: got none",
    );
  }
  const bearable = ordered.filter(({ perplexity }) =>
    perplexity <= maxPerplexity
  );
  return bearable.reduce(
    (best, next) => next.conceptRate > best.conceptRate ? next : best,
    bearable[0] ?? first,
  );
}
