/**
 * One reply of a steered model: `./ocs steer "What should I do today?" --steer baseball=2x`.
 * @module
 */
// deno-lint-ignore-file no-console
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { startTokenId } from "../core/model_folder.ts";
import type { StreamDecoder } from "../core/tokenizer.ts";
import { generate } from "../steer/generate.ts";
import { ReplyText } from "../steer/reply_text.ts";
import type { Intervention, WatchedFeature } from "../steer/interventions.ts";
import type { Sampling } from "../steer/sampling.ts";
import { runTask, type TaskContext } from "./cli.ts";
import { formatTable } from "./format.ts";
import { samplingOf, samplingReport } from "./sampling_flags.ts";
import { sideBySide, terminalWidth } from "./columns.ts";
import { cutMessageIds } from "./conversation.ts";
import {
  loadModel,
  type ModelForIds,
  openModelForIds,
} from "./replying_model.ts";
import {
  checkReplyLength,
  Steering,
  STEERING_FLAGS,
  write,
} from "./steering.ts";

const FLAGS = {
  prompt: { type: "string", help: "what to say to the model" },
  ids: { type: "string", help: 'token ids instead of a prompt: "1 2 3"' },
  raw: {
    default: false,
    help:
      "the prompt is the start of a document to go on with, not a question of a chat",
  },
  watch: {
    type: "strings",
    help:
      "FEATURE by number or label, 758 or 758@3: also print its activation at the position that each token was chosen from",
  },
  compare: { default: false, help: "also reply without steering" },
  json: { default: false, help: "print everything as JSON" },
  ...STEERING_FLAGS,
} as const satisfies FlagTable;
type Flags = ConfigOf<typeof FLAGS>;

if (import.meta.main) {
  await runTask({
    name: "steer",
    description:
      "Replies to a prompt, with features of the model turned up or down.",
    flags: FLAGS,
    positionals: ["prompt"],
  }, async (flags, context) => {
    const plan = await makePlan(flags);
    const replies = await reply(plan, flags, context);
    if (flags.json) {
      console.log(JSON.stringify(report(plan, flags, replies), null, 2));
      return;
    }
    if (flags.compare) write(comparison(plan, replies));
    if (flags.watch.length > 0) write(watchTables(plan, flags, replies));
  });
}

/** What will be done, with everything checked that can be before a GPU is opened. */
interface Plan {
  readonly model: ModelForIds;
  readonly steering: Steering | undefined;
  readonly interventions: readonly Intervention[];
  readonly watched: readonly WatchedFeature[];
  /** Token ids. */
  readonly prompt: readonly number[];
  readonly sampling: Sampling;
  readonly maxNewTokens: number;
  /** Whether each reply is steered. */
  readonly isSteered: readonly boolean[];
}

async function makePlan(flags: Flags): Promise<Plan> {
  const model = await openModelForIds(flags);
  const wantsSae = flags.steer.length + flags.sae.length + flags.watch.length;
  const steering = wantsSae > 0 ? await Steering.open(flags, model) : undefined;
  const interventions = flags.steer.map((text) => steering!.parse(text));
  await steering?.check(interventions);
  const watched = flags.watch.map((text) => steering!.parseWatched(text));
  await steering?.checkWatched(watched);
  if (flags.compare && interventions.length === 0) {
    throw new TypeError("Cannot compare: expected --steer: got none");
  }
  checkReplyLength(flags, model);
  const prompt = promptIds(flags, model);
  const { context_length } = model.config;
  if (prompt.length >= context_length) {
    throw new RangeError(
      `Cannot reply to a prompt of ${prompt.length} tokens: expected fewer than the model's context of ${context_length}: shorten it, or cut it with --truncate`,
    );
  }
  if (flags.stop.length > 0 && !model.hasTokenizer) {
    throw new TypeError(
      `Cannot stop at a text: expected a model with a tokenizer.json: got none in "${model.name}"`,
    );
  }
  return {
    model,
    steering,
    interventions,
    watched,
    prompt,
    sampling: samplingOf(flags, model),
    maxNewTokens: Math.min(flags.max_tokens, context_length - prompt.length),
    isSteered: flags.compare ? [false, true] : [interventions.length > 0],
  };
}

function promptIds(flags: Flags, model: ModelForIds): number[] {
  const { prompt, ids, raw, system } = flags;
  if ((prompt === undefined) === (ids === undefined)) {
    throw new TypeError(
      `Cannot run steer: expected a prompt or --ids: got ${
        prompt === undefined ? "neither" : "both"
      }`,
    );
  }
  if (prompt?.trim() === "") {
    throw new TypeError(
      "Cannot run steer: expected a prompt: got an empty text",
    );
  }
  if (system !== undefined && (raw || ids !== undefined)) {
    throw new TypeError(
      `Cannot run steer: expected --system with a chat: got it with ${
        raw ? "--raw" : "--ids"
      }`,
    );
  }
  const { context_length, vocab_size } = model.config;
  const room = flags.truncate ? context_length - flags.max_tokens : Infinity;
  if (ids !== undefined) return cut(parseIds(ids, vocab_size), room);
  const { tokenizer } = model;
  if (!raw) return cutMessageIds(tokenizer, system, prompt!, room);
  const encoded = tokenizer.encode(prompt!, { addSpecial: false });
  const start = startTokenId(model);
  const [first, ...rest] = encoded;
  return [start, ...cut(first === start ? rest : encoded, room - 1)];
}

/** The last tokens, as many as there is room for. */
function cut(ids: readonly number[], room: number): number[] {
  return ids.slice(Math.max(0, ids.length - room));
}

/** Token ids with spaces or commas between. */
function parseIds(text: string, vocabSize: number): number[] {
  const words = text.split(/[\s,]+/).filter(Boolean);
  if (words.length === 0) {
    throw new RangeError(
      "Cannot read --ids: expected at least one token: got none",
    );
  }
  return words.map((word) => {
    if (/^\d+$/.test(word) && Number(word) < vocabSize) return Number(word);
    throw new RangeError(
      `Cannot read --ids: expected whole numbers from 0 to ${
        vocabSize - 1
      }: got "${word}"`,
    );
  });
}

/** What was generated. */
interface SaidReply {
  readonly ids: readonly number[];
  /** The text up to a stop; ids where the model has no tokenizer. */
  readonly text: string;
  /** Of the watched features, one row a token. */
  readonly activations: readonly (readonly number[])[];
}

/** Generates the replies, and prints a single one as it comes. */
async function reply(
  plan: Plan,
  flags: Flags,
  context: TaskContext,
): Promise<SaidReply[]> {
  const { model, steering, interventions, watched } = plan;
  const { prompt, sampling, maxNewTokens } = plan;
  const use = {
    tokens: prompt.length + maxNewTokens,
    rows: plan.isSteered.length,
    leastTokens: prompt.length + 1,
  };
  using loaded = await loadModel(flags, model, use, context);
  using bank = await steering?.load(loaded.gpu, interventions, watched);
  if (steering && interventions.length > 0) {
    context.note(
      `steering: ${steering.describe(interventions)} at ${
        steering.describePlaces(interventions)
      }`,
    );
  }
  const isShown = !flags.json && !flags.compare;
  const said = plan.isSteered.map(() => "");
  const show = (i: number, piece: string): void => {
    said[i] += piece;
    if (isShown) write(piece);
  };
  const texts = plan.isSteered.map(() =>
    new ReplyText(decoderOf(model), flags.stop)
  );
  const requests = plan.isSteered.map((isSteered, i) => ({
    prompt,
    sampling,
    stop: (id: number): boolean => {
      show(i, texts[i]!.push(id));
      return texts[i]!.isStopped;
    },
    ...(bank && { steeringSet: isSteered ? 0 : 1 }),
  }));
  const activations = plan.isSteered.map((): (readonly number[])[] => []);
  const replies = await generate(loaded, requests, {
    maxNewTokens,
    ...(bank ? { steering: bank } : {}),
    positions: flags.positions,
    signal: context.signal,
    onTokens: (i, _, some) => activations[i]!.push(...some),
  });
  texts.forEach((text, i) => show(i, text.end()));
  if (isShown) write("\n");
  context.signal.throwIfAborted();
  return replies.map((ids, i) => ({
    ids,
    text: said[i]!,
    activations: activations[i]!,
  }));
}

/** Text as tokens come; their ids where the model has no tokenizer. */
function decoderOf(model: ModelForIds): StreamDecoder {
  return model.hasTokenizer
    ? model.tokenizer.streamDecoder({ skipSpecial: true })
    : { push: (id) => `${id} `, end: () => "" };
}

/** The unsteered reply beside the steered one. */
function comparison(
  { steering, interventions }: Plan,
  replies: readonly SaidReply[],
): string {
  const [unsteered = "", steered = ""] = replies.map(({ text }) => text);
  return sideBySide(
    { title: "unsteered", text: unsteered },
    { title: steering!.describe(interventions), text: steered },
    terminalWidth(),
  );
}

/** A table a reply: each token, and the activations that it was chosen at. */
function watchTables(
  { model, steering, interventions, isSteered }: Plan,
  { watch }: Flags,
  replies: readonly SaidReply[],
): string {
  return replies.map(({ ids, activations }, i) => {
    const title = isSteered[i]
      ? steering!.describe(interventions)
      : "unsteered";
    const rows = ids.map((id, t) => [
      model.hasTokenizer
        ? JSON.stringify(model.tokenizer.decode([id]))
        : `${id}`,
      ...activations[t]!.map((value) => value.toFixed(2)),
    ]);
    return `\n${title}:\n${formatTable(["token", ...watch], rows)}\n`;
  }).join("");
}

/** What `--json` prints. */
function report(
  plan: Plan,
  flags: Flags,
  replies: readonly SaidReply[],
): Readonly<Record<string, unknown>> {
  const { model, steering, interventions, isSteered } = plan;
  return {
    model: model.name,
    saes: (steering?.saes ?? []).map(({ sae, hookPoint }) => ({
      sae: sae.name,
      hook_point: hookPoint,
    })),
    steering: interventions.map((intervention) => ({
      ...intervention,
      layer: steering!.placeOf(intervention).layer,
      label: steering!.labelOf(intervention) ?? null,
    })),
    positions: flags.positions,
    encode: flags.encode,
    sampling: samplingReport(plan.sampling),
    max_tokens: plan.maxNewTokens,
    stop: flags.stop,
    prompt_ids: plan.prompt,
    watched: plan.watched,
    replies: replies.map(({ ids, text, activations }, i) => ({
      steered: isSteered[i],
      text: model.hasTokenizer ? text : null,
      ids,
      ...(plan.watched.length > 0 && { activations }),
    })),
  };
}
