/**
 * One reply of a steered model: `./ocs steer "What should I do today?" --steer baseball=2x`.
 * @module
 */
// deno-lint-ignore-file no-console
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { startTokenId } from "../core/model_folder.ts";
import type { StreamDecoder } from "../core/tokenizer.ts";
import { generate } from "../steer/generate.ts";
import type { Intervention } from "../steer/interventions.ts";
import type { Sampling } from "../steer/sampling.ts";
import { runTask, type TaskContext } from "./cli.ts";
import { samplingOf, samplingReport } from "./sampling_flags.ts";
import { sideBySide, terminalWidth } from "./columns.ts";
import { chatIds } from "./conversation.ts";
import {
  checkReplyLength,
  loadModel,
  type ModelForIds,
  openModelForIds,
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
    } else if (flags.compare) {
      write(comparison(plan, replies));
    }
  });
}

/** What will be done, with everything checked that can be before a GPU is opened. */
interface Plan {
  readonly model: ModelForIds;
  readonly steering: Steering | undefined;
  readonly interventions: readonly Intervention[];
  /** Token ids. */
  readonly prompt: readonly number[];
  readonly sampling: Sampling;
  readonly maxNewTokens: number;
  /** Whether each reply is steered. */
  readonly isSteered: readonly boolean[];
}

async function makePlan(flags: Flags): Promise<Plan> {
  const model = await openModelForIds(flags.model);
  const steering = flags.steer.length > 0 || flags.sae.length > 0
    ? await Steering.open(flags, model)
    : undefined;
  const interventions = flags.steer.map((text) => steering!.parse(text));
  await steering?.check(interventions);
  if (flags.compare && interventions.length === 0) {
    throw new TypeError("Cannot compare: expected --steer: got none");
  }
  const prompt = promptIds(flags, model);
  const { context_length } = model.config;
  checkReplyLength(flags, model);
  if (prompt.length >= context_length) {
    throw new RangeError(
      `Cannot reply to a prompt of ${prompt.length} tokens: expected fewer than the model's context of ${context_length}: shorten it`,
    );
  }
  return {
    model,
    steering,
    interventions,
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
  if (ids !== undefined) return parseIds(ids, model.config.vocab_size);
  const { tokenizer } = model;
  if (!raw) {
    return chatIds(tokenizer, system, [{ role: "user", content: prompt! }]);
  }
  const encoded = tokenizer.encode(prompt!, { addSpecial: false });
  const start = startTokenId(model);
  return encoded[0] === start ? encoded : [start, ...encoded];
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

/** Generates the replies, and prints a single one as it comes. */
async function reply(
  plan: Plan,
  flags: Flags,
  context: TaskContext,
): Promise<number[][]> {
  const { model, steering, interventions, prompt, sampling, maxNewTokens } =
    plan;
  const nTokens = plan.isSteered.length * (prompt.length + maxNewTokens);
  using loaded = await loadModel(flags, model, nTokens, context);
  using bank = await steering?.load(loaded.gpu, interventions);
  if (steering && interventions.length > 0) {
    context.note(
      `steering: ${steering.describe(interventions)} at ${
        steering.describePlaces(interventions)
      }`,
    );
  }
  const requests = plan.isSteered.map((isSteered) => ({
    prompt,
    sampling,
    ...(isSteered ? { steeringSet: 0 } : {}),
  }));
  const stream = flags.json || flags.compare ? undefined : decoderOf(model);
  const replies = await generate(loaded, requests, {
    maxNewTokens,
    ...(bank ? { steering: bank } : {}),
    positions: flags.positions,
    signal: context.signal,
    onTokens: (_, ids) => {
      if (stream) write(ids.map((id) => stream.push(id)).join(""));
    },
  });
  if (stream) write(`${stream.end()}\n`);
  context.signal.throwIfAborted();
  return replies;
}

/** Text as tokens come; their ids where the model has no tokenizer. */
function decoderOf(model: ModelForIds): StreamDecoder {
  return model.hasTokenizer
    ? model.tokenizer.streamDecoder({ skipSpecial: true })
    : { push: (id) => `${id} `, end: () => "" };
}

function textOf(model: ModelForIds, ids: readonly number[]): string {
  const decoder = decoderOf(model);
  return ids.map((id) => decoder.push(id)).join("") + decoder.end();
}

/** The unsteered reply beside the steered one. */
function comparison(
  { model, steering, interventions }: Plan,
  replies: readonly (readonly number[])[],
): string {
  const [unsteered = "", steered = ""] = replies.map((ids) =>
    textOf(model, ids)
  );
  return sideBySide(
    { title: "unsteered", text: unsteered },
    { title: steering!.describe(interventions), text: steered },
    terminalWidth(),
  );
}

/** What `--json` prints. */
function report(
  plan: Plan,
  flags: Flags,
  replies: readonly (readonly number[])[],
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
    prompt_ids: plan.prompt,
    replies: replies.map((ids, i) => ({
      steered: isSteered[i],
      text: model.hasTokenizer ? textOf(model, ids) : null,
      ids,
    })),
  };
}
