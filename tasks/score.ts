/**
 * How likely a text is to a model: `./ocs score --text notes.txt --steer baseball=2x`.
 * @module
 */
// deno-lint-ignore-file no-console
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { hookPlace } from "../core/hook_point.ts";
import { type ModelFolder, startTokenId } from "../core/model_folder.ts";
import { type Olmo2, Workspace } from "../core/olmo2.ts";
import { Sae } from "../core/sae.ts";
import { SaeSplice } from "../core/sae_splice.ts";
import {
  type DocumentWindow,
  scoreDocuments,
} from "../core/score_documents.ts";
import type { ScoringPass } from "../core/score.ts";
import type { CorpusDocument } from "../core/text.ts";
import { tokenizeDocuments } from "../core/tokenized_text.ts";
import type { Gpu } from "../gpu/mod.ts";
import type { Intervention } from "../steer/interventions.ts";
import { openModel, runTask, type TaskContext } from "./cli.ts";
import { formatCount, formatTable } from "./format.ts";
import { loadModel } from "./replying_model.ts";
import { STEER_FLAGS, type SteerFlags, Steering } from "./steering.ts";
import { DOCUMENTS_HELP, typedDocuments } from "./text_open.ts";

const FLAGS = {
  sentence: { type: "string", help: "a text to score, instead of --text" },
  text: {
    type: "string",
    help: `what to score: ${DOCUMENTS_HELP}`,
  },
  text_column: { default: "text", help: "field or column of the text" },
  documents: {
    default: 1000,
    integer: true,
    min: 1,
    help: "most documents of the text",
  },
  splice: {
    default: false,
    help: "also score with the SAE's reconstruction in place of the stream",
  },
  window: {
    type: "number",
    integer: true,
    min: 2,
    unit: "tokens",
    help: "read at once of a document; the model's context without it",
  },
  stride: {
    type: "number",
    integer: true,
    min: 1,
    unit: "tokens",
    help:
      "that a window after a document's first scores; half the window without it",
  },
  tokens: { default: false, help: "print the log-probability of every token" },
  json: { default: false, help: "print JSON" },
  ...STEER_FLAGS,
} as const satisfies FlagTable;

type Flags = ConfigOf<typeof FLAGS>;

/** A text as the model reads it. */
interface ScoredText {
  readonly id: string;
  /** The start token, and those of the text. */
  readonly ids: Uint32Array<ArrayBuffer>;
}

/** One way to run the model, and what it makes of the texts. */
interface Score {
  readonly what: string;
  /** ln p of each token but the first, given those before it. */
  readonly logprobs: readonly Float32Array[];
}

if (import.meta.main) {
  await runTask({
    name: "score",
    description:
      "Scores a text: log-probabilities and perplexity, of the model as it is, steered, and with an SAE spliced in.",
    flags: FLAGS,
    positionals: ["sentence"],
  }, async (flags, context) => {
    const texts = await readTexts(
      flags,
      await openModel(flags.model, flags.quantize),
      context.signal,
    );
    const scores = await scoreTexts(flags, texts, context);
    print(flags, texts, scores);
  });
}

async function readTexts(
  flags: Flags,
  model: ModelFolder,
  signal: AbortSignal,
): Promise<{ model: ModelFolder; texts: readonly ScoredText[] }> {
  const { sentence, text } = flags;
  if ((sentence === undefined) === (text === undefined)) {
    throw new TypeError(
      `Cannot score: expected a sentence or --text: got ${
        text === undefined ? "neither" : "both"
      }`,
    );
  }
  const documents: Iterable<CorpusDocument> | AsyncIterable<CorpusDocument> =
    sentence === undefined
      ? typedDocuments(text!, signal, { textColumn: flags.text_column })
      : [{ id: "sentence", text: sentence }];
  const texts: ScoredText[] = [];
  const tokenized = tokenizeDocuments(documents, model.tokenizer, {
    startTokenId: startTokenId(model),
    contextLength: Infinity,
  });
  for await (const { id, ids, index } of tokenized) {
    if (ids.length > 1) texts.push({ id, ids });
    if (index + 1 >= flags.documents) break;
  }
  if (texts.length > 0) return { model, texts };
  throw new RangeError(
    "Cannot score: expected a text of at least one token: got none",
  );
}

/** Scores texts in each of the ways that the flags name. */
async function scoreTexts(
  flags: Flags,
  { model, texts }: { model: ModelFolder; texts: readonly ScoredText[] },
  context: TaskContext,
): Promise<Score[]> {
  const steering = flags.steer.length > 0 || flags.splice
    ? await Steering.open(flags, model)
    : undefined;
  const interventions = flags.steer.map((text) => steering!.parse(text));
  await steering?.check(interventions);
  const places = windowOf(flags, model, await context.openGpu(flags.gpu));
  // Blocks are done with their keys and values once a pass is.
  const use = { tokens: places.window, nCaches: 1, contextFlag: "--window" };
  using loaded = await loadModel(flags, model, use, context);
  const documents = texts.map(({ ids }) => ids);
  const nTokens = documents.reduce((n, { length }) => n + length - 1, 0);
  using owned = new DisposableStack();
  const ways: Way[] = [{ what: "model" }];
  if (interventions.length > 0) {
    ways.push(await steeredWay(owned, loaded, steering!, interventions, flags));
  }
  if (flags.splice) {
    ways.push(...await splicedWays(owned, loaded, steering!, places.window));
  }
  using bar = context.progress({
    label: "score",
    unit: "tokens",
    total: ways.length * nTokens,
  });
  const scores: Score[] = [];
  for (const { what, ...hooks } of ways) {
    const nats = await scoreDocuments(loaded, documents, {
      ...places,
      ...hooks,
      beforePass: (windows) => {
        context.signal.throwIfAborted();
        hooks.beforePass?.(windows);
        bar.update(scores.length * nTokens + nBefore(documents, windows[0]!));
      },
    });
    scores.push({ what, logprobs: nats.map((part) => part.map((x) => -x)) });
  }
  bar.update(ways.length * nTokens);
  bar.end();
  return scores;
}

/** Tokens that were scored before a window. */
function nBefore(
  documents: readonly Uint32Array[],
  { document, scoredFrom }: DocumentWindow,
): number {
  return documents.slice(0, document)
    .reduce((n, { length }) => n + length - 1, scoredFrom - 1);
}

/** How much of a document is read at once. */
function windowOf(
  flags: Flags,
  { name, config }: ModelFolder,
  gpu: Gpu,
): { window: number; stride: number } {
  const most = Math.min(
    config.context_length,
    Workspace.mostTokens(gpu, config),
  );
  const window = flags.window ?? most;
  const stride = flags.stride ?? Math.max(1, Math.floor(window / 2));
  if (window > most) {
    throw new RangeError(
      `Cannot score with --window ${window}: expected at most ${most}, which model "${name}" reads at once on this GPU`,
    );
  }
  if (stride >= window) {
    throw new RangeError(
      `Cannot score with --stride ${stride}: expected less than the window of ${window} tokens`,
    );
  }
  return { window, stride };
}

/** How the model is run. */
interface Way {
  readonly what: string;
  readonly beforePass?: (windows: readonly DocumentWindow[]) => void;
  readonly hook?: (pass: ScoringPass) => void;
}

/** Steered as if the text were a reply: its n-th token is the reply's. */
async function steeredWay(
  owned: DisposableStack,
  { gpu }: Olmo2,
  steering: Steering,
  interventions: readonly Intervention[],
  { positions }: SteerFlags,
): Promise<Way> {
  const bank = owned.use(await steering.load(gpu, interventions));
  return {
    what: `steered: ${steering.describe(interventions)}`,
    beforePass: (windows) =>
      bank.loadPass(
        windows.flatMap(({ start, end }) =>
          Array.from({ length: end - start }, (_, i) => {
            const n = start + i; // the start token is before the reply
            const isLeft = positions === "generated" && n === 0;
            return { set: isLeft ? undefined : 0, n };
          })
        ),
      ),
    hook: ({ rec, layer, resid }) => bank.run(rec, layer, resid),
  };
}

/** With each SAE's reconstruction in place of the stream it was trained on. */
async function splicedWays(
  owned: DisposableStack,
  { gpu }: Olmo2,
  { saes }: Steering,
  window: number,
): Promise<Way[]> {
  const ways: Way[] = [];
  for (const { sae, hookPoint } of saes) {
    const { site, layer } = hookPlace(hookPoint);
    if (site !== "resid_post") {
      throw new RangeError(
        `Cannot splice SAE "${sae.name}" in: expected one of resid_post: got ${hookPoint}, which is no part of the stream`,
      );
    }
    const maxTokens = Math.max(window, 2048);
    const splice = owned.use(
      new SaeSplice(owned.use(await Sae.load(gpu, sae)), maxTokens),
    );
    ways.push({
      what: `SAE spliced in at ${hookPoint}`,
      hook: (pass) => {
        if (pass.layer !== layer) return;
        splice.run(pass.rec, pass.places, pass.resid);
      },
    });
  }
  return ways;
}

/** Mean of −ln p over all tokens. */
function meanNats({ logprobs }: Score): number {
  let [sum, n] = [0, 0];
  for (const part of logprobs) {
    for (const value of part) sum -= value;
    n += part.length;
  }
  return sum / n;
}

function print(
  flags: Flags,
  { model, texts }: { model: ModelFolder; texts: readonly ScoredText[] },
  scores: readonly Score[],
): void {
  for (const score of scores) {
    if (Number.isFinite(meanNats(score))) continue;
    throw new Error(
      `Cannot score: expected finite log-probabilities: got others (${score.what}): steer less strongly`,
    );
  }
  if (flags.json) {
    console.log(JSON.stringify(reportOf({ model, texts }, scores), null, 2));
    return;
  }
  if (flags.tokens) console.log(tokenTable({ model, texts }, scores));
  const n = scores[0]!.logprobs.reduce((n, { length }) => n + length, 0);
  console.log(`${formatCount(n)} tokens of ${texts.length} documents`);
  console.log(formatTable(
    ["", "nats a token", "perplexity"],
    scores.map((score) => [
      score.what,
      meanNats(score).toFixed(4),
      Math.exp(meanNats(score)).toFixed(3),
    ]),
  ));
}

function tokenTable(
  { model, texts }: { model: ModelFolder; texts: readonly ScoredText[] },
  scores: readonly Score[],
): string {
  const rows = texts.flatMap(({ ids }, d) =>
    [...ids.subarray(1)].map((id, i) => [
      JSON.stringify(model.tokenizer.decode([id])),
      ...scores.map(({ logprobs }) => logprobs[d]![i]!.toFixed(3)),
    ])
  );
  return formatTable(["token", ...scores.map(({ what }) => what)], rows);
}

function reportOf(
  { model, texts }: { model: ModelFolder; texts: readonly ScoredText[] },
  scores: readonly Score[],
): Readonly<Record<string, unknown>> {
  return {
    model: model.name,
    scores: scores.map((score) => ({
      what: score.what,
      nats_per_token: meanNats(score),
      perplexity: Math.exp(meanNats(score)),
    })),
    documents: texts.map(({ id, ids }, d) => ({
      id,
      ids: [...ids],
      tokens: [...ids].map((id) => model.tokenizer.decode([id])),
      logprobs: scores.map(({ logprobs }) => [...logprobs[d]!]),
    })),
  };
}
