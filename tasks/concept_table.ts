/**
 * The quickstart's last stages: the feature of every concept, the strength to
 * steer with, and what steering by it does.
 * @module
 */
import type { HookPoint } from "../core/hook_point.ts";
import { hookPlace } from "../core/hook_point.ts";
import { type ModelFolder, startTokenId } from "../core/model_folder.ts";
import type { Olmo2 } from "../core/olmo2.ts";
import type { Sae } from "../core/sae.ts";
import type { SaeFile } from "../core/sae_file.ts";
import {
  conceptByName,
  mentionsConcept,
  NEUTRAL_QUESTIONS,
  storybook,
} from "../core/storybook.ts";
import { tokenizeDocuments } from "../core/tokenized_text.ts";
import type { ConceptScore } from "../steer/concept_f1.ts";
import { findConceptFeatures } from "../steer/concept_features.ts";
import {
  chooseStrength,
  runTrials,
  type SteeringTrial,
  type TrialResult,
} from "../steer/concept_steering.ts";
import type { Intervention } from "../steer/interventions.ts";
import type { TaskContext } from "./cli.ts";
import type { Progress } from "./progress.ts";
import type { ReportConcept, ReportSample } from "./quickstart_report.ts";

/** A model with an SAE, on the GPU and as files. */
export interface SteeredModel {
  readonly folder: ModelFolder;
  readonly model: Olmo2;
  readonly saeFile: SaeFile;
  readonly sae: Sae;
  readonly hookPoint: HookPoint;
}

/** Strengths that are tried, in multiples of the feature's maximum. */
const STRENGTHS: readonly number[] = [1.5, 2, 2.5, 3];
/** Steered replies may be this many times as surprising to the model as unsteered ones. */
const MOST_SURPRISE = 2;
const SAMPLING = { temperature: 0.7, topK: 0, topP: 0.9 };
const MAX_NEW_TOKENS = 32;
/** Times that every question is asked of the model as it is. */
const UNSTEERED_TRIALS = 4;
/** Concepts that the sample replies are steered by. */
const SAMPLE_CONCEPTS = ["batman", "japan", "baseball"];

/** Documents of the storybook that features are chosen on. */
export interface FindOptions {
  readonly nDocuments: number;
  readonly seed: number;
}

/** How a concept table is made. */
export interface ConceptTableOptions {
  /** Seed of sampling. */
  readonly seed: number;
  /** Questions that strengths are chosen on; as many others measure the result. */
  readonly nQuestions: number;
}

/** The table, and sample replies. */
export interface ConceptTable {
  readonly unsteered: { readonly rate: number; readonly perplexity: number };
  readonly concepts: readonly ReportConcept[];
  readonly samples: readonly ReportSample[];
}

/** The best feature of each of the storybook's concepts, by labelled examples of it and of the others. */
export async function findFeatures(
  { folder, model, sae, hookPoint }: SteeredModel,
  { nDocuments, seed }: FindOptions,
  context: TaskContext,
): Promise<ConceptScore[]> {
  using bar = context.progress({
    label: "find",
    unit: "documents",
    total: nDocuments,
  });
  const documents = storybook(seed).take(nDocuments).map((doc, i) => ({
    id: `${seed}:${i}`,
    ...doc,
  }));
  const tokenized = tokenizeDocuments(documents, folder.tokenizer, {
    startTokenId: startTokenId(folder),
    contextLength: Math.min(256, folder.config.context_length),
  });
  const scores = await findConceptFeatures(model, sae, hookPoint, tokenized, {
    onProgress: (n) => bar.update(n),
    signal: context.signal,
  });
  bar.end();
  return scores;
}

/** Chooses each concept's strength on some questions, and measures it on others. */
export async function steerConcepts(
  steered: SteeredModel,
  scores: readonly ConceptScore[],
  { seed, nQuestions }: ConceptTableOptions,
  context: TaskContext,
): Promise<ConceptTable> {
  const nTrials = scores.length * (STRENGTHS.length + 1) + UNSTEERED_TRIALS;
  using bar = context.progress({
    label: "steer",
    unit: "trials",
    total: nTrials,
  });
  const run = trialRunner(steered, seed, bar, context.signal);
  const choosing = NEUTRAL_QUESTIONS.slice(0, nQuestions);
  const measuring = NEUTRAL_QUESTIONS.slice(nQuestions, 2 * nQuestions);
  const anyConcept = scores[0]!.concept;
  const unsteered = await run(
    Array.from({ length: UNSTEERED_TRIALS }, () => trialOf(anyConcept, [])),
    measuring,
  );
  const perplexity = mean(unsteered.map((result) => result.perplexity));
  const tried = await run(
    scores.flatMap(({ concept, feature }) =>
      STRENGTHS.map((s) => trialOf(concept, [clamp(feature, s)]))
    ),
    choosing,
  );
  const strengths = chooseStrengths(tried, MOST_SURPRISE * perplexity);
  const measured = await run(
    scores.map(({ concept, feature }, i) =>
      trialOf(concept, [clamp(feature, strengths[i]!)])
    ),
    measuring,
  );
  bar.end();
  const concepts = scores.map(({ concept, feature, f1 }, i) => ({
    concept,
    feature,
    f1,
    strength: strengths[i]!,
    rate: measured[i]!.conceptRate,
    perplexity: measured[i]!.perplexity,
  }));
  return {
    unsteered: {
      rate: mentionRate(
        unsteered.flatMap(({ replies }) => replies),
        scores,
      ),
      perplexity,
    },
    concepts,
    samples: samplesOf(measuring.slice(0, 3), scores, unsteered, measured),
  };
}

type RunTrials = (
  trials: readonly SteeringTrial[],
  questions: readonly string[],
) => Promise<TrialResult[]>;

/** Runs trials one lot after the other; the bar counts them all. */
function trialRunner(
  { model, folder, saeFile, hookPoint }: SteeredModel,
  seed: number,
  bar: Progress,
  signal: AbortSignal,
): RunTrials {
  let nBefore = 0;
  return async (trials, questions) => {
    const results = await runTrials(model, folder.tokenizer, saeFile, trials, {
      layer: hookPlace(hookPoint).layer,
      questions,
      maxNewTokens: MAX_NEW_TOKENS,
      sampling: { ...SAMPLING, seed },
      onProgress: (n) => bar.update(nBefore + n),
      signal,
    });
    nBefore += trials.length;
    return results;
  };
}

/** The strength of each concept, from its trials of all {@link STRENGTHS} in a row. */
function chooseStrengths(
  tried: readonly TrialResult[],
  maxPerplexity: number,
): number[] {
  const n = STRENGTHS.length;
  return Array.from({ length: tried.length / n }, (_, i) => {
    const results = tried.slice(i * n, (i + 1) * n);
    const options = results.map((result, s) => ({
      strength: STRENGTHS[s]!,
      ...result,
    }));
    return chooseStrength(options, maxPerplexity).strength;
  });
}

/** Mean over concepts of the share of replies that mention each. */
function mentionRate(
  replies: readonly string[],
  scores: readonly ConceptScore[],
): number {
  return mean(scores.map(({ concept }) => {
    const hits = replies.filter((reply) =>
      mentionsConcept(reply, conceptByName(concept))
    );
    return hits.length / replies.length;
  }));
}

/** The first questions with the unsteered reply and those steered by the sample concepts. */
function samplesOf(
  questions: readonly string[],
  scores: readonly ConceptScore[],
  unsteered: readonly TrialResult[],
  measured: readonly TrialResult[],
): ReportSample[] {
  const chosen = SAMPLE_CONCEPTS.map((name) =>
    scores.findIndex(({ concept }) => concept === name)
  )
    .filter((i) => i >= 0);
  return questions.map((question, q) => ({
    question,
    replies: [
      { steering: "unsteered", text: unsteered[0]!.replies[q]! },
      ...chosen.map((i) => ({
        steering: scores[i]!.concept,
        text: measured[i]!.replies[q]!,
      })),
    ],
  }));
}

function trialOf(
  concept: string,
  interventions: readonly Intervention[],
): SteeringTrial {
  return { concept: conceptByName(concept), interventions };
}

function clamp(feature: number, strength: number): Intervention {
  return { feature, mode: "clamp", strength, unit: "maximum" };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
