/**
 * "Does this GPU compute it right?" Compares a model folder with values that
 * Hugging Face transformers computed from the same weights.
 * @module
 */
import { z } from "zod";
import {
  type Check,
  checkOf,
  relativeError,
  shareDifferent,
} from "../core/check.ts";
import { checkJson } from "../core/check_json.ts";
import { Olmo2 } from "../core/olmo2.ts";
import { type Olmo2Config, readModelConfig } from "../core/olmo2_config.ts";
import { SaeFile } from "../core/sae_file.ts";
import { openCheckpoint, type Safetensors } from "../core/safetensors.ts";
import type { Folder } from "../core/source.ts";
import { Tokenizer } from "../core/tokenizer.ts";
import type { Gpu } from "../gpu/mod.ts";
import { generate, GREEDY } from "./generate.ts";
import {
  type Intervention,
  type SteerEncoding,
  SteeringBank,
} from "./interventions.ts";
import { streams } from "./streams.ts";

/** Largest relative error of a forward pass in f32. */
const LIMIT = 1e-5;

const Chat = z.array(
  z.object({
    role: z.enum(["system", "user", "assistant"]),
    content: z.string(),
  }),
);

/** `expected.json`: what the tensors of the expected file were computed with. */
const Expected = z.object({
  steering_layer: z.int().min(0).exactOptional(),
  clamps: z.record(z.string().regex(/^\d+$/), z.number()).exactOptional(),
  cases: z.array(
    z.object({ chat: Chat, text: z.string(), greedy_text: z.string() }),
  ).exactOptional(),
  tokenizer: z.array(z.object({ text: z.string(), ids: z.array(z.int()) }))
    .exactOptional(),
});
type Expected = z.infer<typeof Expected>;

/** What {@link checkModel} found. */
export interface ModelReport {
  readonly checks: readonly Check[];
  /**
   * Precision of the rotary frequencies that the reference was computed with: bf16 where the
   * model had been cast with `model.to(torch.bfloat16)`, which rounds its buffers too.
   */
  readonly rope: "f32" | "bf16";
}

/**
 * Compares a model with an expected file: logits, every `resid_post`, the half-depth
 * read-out, greedy replies with and without a cache, the same under steering, or, for a
 * file of chats, their texts, ids, streams and replies. Everything the file holds is compared.
 *
 * A checkpoint of 16-bit weights is tried with both precisions of the rotary frequencies,
 * and the report says which one the reference has; the limits are the same.
 * @throws {TypeError} If the file is of a model of other sizes.
 * @throws {Error} If the model's files are damaged, or the file holds nothing to compare.
 */
export async function checkModel(
  gpu: Gpu,
  model: Folder,
  expected: Safetensors,
  expectedJson: unknown,
): Promise<ModelReport> {
  const json = checkJson(
    Expected,
    expectedJson,
    `expected.json beside ${expected.source.name}`,
  );
  const config = await readModelConfig(model);
  const checkpoint = await openCheckpoint(model);
  checkExpectedFits(expected, model, config);
  const isNarrow = checkpoint.info("model.embed_tokens.weight").dtype !== "F32";
  let first: ModelReport | undefined;
  for (const rope of isNarrow ? ["f32", "bf16"] as const : ["f32"] as const) {
    using loaded = await Olmo2.load(gpu, checkpoint, config, { rope });
    const suite = new Comparison(loaded, model, expected, json);
    const report = { checks: await suite.run(), rope };
    if (report.checks.every(({ ok }) => ok)) return report;
    first ??= report;
  }
  return first!;
}

/** Throws where the streams or logits of an expected file are not as wide as the model's. */
function checkExpectedFits(
  expected: Safetensors,
  model: Folder,
  { vocab_size, d_model }: Olmo2Config,
): void {
  const widths: [RegExp, number][] = [
    [/^(?:.*\.)?logits(?:_last)?$/, vocab_size],
    [/^(?:.*\.)?resid_post\.\d+$/, d_model],
  ];
  const { tensors } = expected;
  if (!tensors.has("input_ids") && !tensors.has("0.ids")) return;
  for (const { name, shape } of tensors.values()) {
    const [, width] = widths.find(([pattern]) => pattern.test(name)) ?? [];
    if (width === undefined || shape.at(-1) === width) continue;
    throw new TypeError(
      `Cannot verify model "${model.name}" against "${expected.source.name}": expected tensor "${name}" to be ${width} wide: got [${
        shape.join(", ")
      }]: give the model that it was computed with`,
    );
  }
}

/** One model against one expected file. */
class Comparison {
  readonly #model: Olmo2;
  readonly #config: Olmo2Config;
  readonly #folder: Folder;
  readonly #expected: Safetensors;
  readonly #json: Expected;
  readonly #checks: Check[] = [];

  constructor(
    model: Olmo2,
    folder: Folder,
    expected: Safetensors,
    json: Expected,
  ) {
    this.#model = model;
    this.#config = model.config;
    this.#folder = folder;
    this.#expected = expected;
    this.#json = json;
  }

  async run(): Promise<Check[]> {
    if (this.#expected.tensors.has("input_ids")) await this.#batch();
    if (this.#expected.tensors.has("greedy_output")) {
      await this.#greedy("", undefined);
    }
    if (this.#json.clamps) {
      for (const encoding of ["relu", "linear"] as const) {
        await this.#steered(encoding);
      }
    }
    if (this.#json.tokenizer || this.#json.cases) await this.#chats();
    if (this.#checks.length === 0) {
      throw new Error(
        `Cannot verify against "${this.#expected.source.name}": expected tensors such as input_ids and logits, or 0.ids: got none that is known`,
      );
    }
    return this.#checks;
  }

  /** Logits and streams of a padded batch, over its unmasked positions. */
  async #batch(steering?: { bank: SteeringBank; name: string }): Promise<void> {
    const ids = await this.#expected.ints("input_ids");
    const mask = await this.#expected.ints("attention_mask");
    const [, T] = this.#expected.info("input_ids").shape as [number, number];
    const kept = [...mask.keys()].filter((i) => mask[i] !== 0);
    const rows = Map.groupBy(kept, (i) => Math.floor(i / T)).values();
    const sequences = [...rows].map((places) => places.map((i) => ids[i]!));
    const got = await streams(this.#model, sequences, steering?.bank);
    const compare = async (name: string, values: Float32Array) => {
      if (!this.#expected.tensors.has(name)) return;
      const width = values.length / kept.length;
      const want = await this.#expected.floats(name);
      const unmasked = new Float32Array(values.length);
      kept.forEach((from, to) =>
        unmasked.set(
          want.subarray(from * width, (from + 1) * width),
          to * width,
        )
      );
      this.#checks.push(checkOf(name, relativeError(values, unmasked), LIMIT));
    };
    if (steering) return await compare(`${steering.name}.logits`, got.logits);
    await compare("logits", got.logits);
    for (const [l, values] of got.resid_post.entries()) {
      await compare(`resid_post.${l}`, values);
    }
    await compare("half_depth_hidden_states_last", got.halfDepth);
  }

  async #greedy(prefix: string, bank: SteeringBank | undefined): Promise<void> {
    const prompt = [...await this.#expected.ints("greedy_prompt")];
    const want = [...await this.#expected.ints(`${prefix}greedy_output`)];
    const maxNewTokens = want.length - prompt.length;
    const request = {
      prompt,
      sampling: GREEDY,
      ...(bank && { steeringSet: 0 }),
    };
    const options = {
      maxNewTokens,
      stopIds: [],
      ...(bank && { steering: bank }),
    };
    const [reply] = await generate(this.#model, [request], options);
    const limit = 0;
    this.#checks.push(
      checkOf(
        `${prefix}greedy_output, tokens that differ`,
        shareDifferent([...prompt, ...reply!], want),
        limit,
      ),
    );
    const whole = await this.#greedyWithoutCache(prompt, maxNewTokens, bank);
    this.#checks.push(
      checkOf(
        `${prefix}greedy_output without a cache`,
        shareDifferent(whole, want),
        limit,
      ),
    );
  }

  /** Runs the whole sequence for every token. */
  async #greedyWithoutCache(
    prompt: readonly number[],
    n: number,
    bank: SteeringBank | undefined,
  ): Promise<number[]> {
    const ids = [...prompt];
    for (let i = 0; i < n; i++) {
      const { logits } = await streams(this.#model, [ids], bank);
      const last = logits.subarray(-this.#config.vocab_size);
      ids.push(last.indexOf(last.reduce((most, x) => Math.max(most, x))));
    }
    return ids;
  }

  async #steered(encoding: SteerEncoding): Promise<void> {
    const layer = this.#json.steering_layer ?? 0;
    const sae = await SaeFile.open(this.#folder, { layer });
    const set = Object.entries(this.#json.clamps ?? {}).map((
      [feature, strength],
    ): Intervention => ({
      feature: Number(feature),
      mode: "clamp",
      strength,
      unit: "absolute",
    }));
    using bank = await SteeringBank.load(this.#model.gpu, sae, [set], {
      layer,
      encoding,
    });
    const name = `steered.${encoding}`;
    await this.#batch({ bank, name });
    await this.#greedy(`${name}.`, bank);
  }

  /** Token ids, chat texts, streams and greedy replies of conversations. */
  async #chats(): Promise<void> {
    const tokenizer = await Tokenizer.load(this.#folder);
    for (const { text, ids } of this.#json.tokenizer ?? []) {
      const got = tokenizer.encode(text);
      // An empty text has no ids to compare; the count is the check.
      const different = ids.length === 0
        ? got.length
        : shareDifferent(got, ids);
      this.#checks.push(
        checkOf(`ids of ${JSON.stringify(text)}`, different, 0),
      );
    }
    for (const [i, chat] of (this.#json.cases ?? []).entries()) {
      await this.#chat(tokenizer, i, chat);
    }
  }

  async #chat(
    tokenizer: Tokenizer,
    i: number,
    { chat, text, greedy_text }: NonNullable<Expected["cases"]>[number],
  ): Promise<void> {
    const add = (name: string, error: number, limit = 0) => {
      this.#checks.push(checkOf(`${i}.${name}`, error, limit));
    };
    const prompt = tokenizer.applyChatTemplate(chat, {
      addGenerationPrompt: true,
    });
    const ids = tokenizer.encode(prompt, { addSpecial: false });
    const wantIds = [...await this.#expected.ints(`${i}.ids`)];
    add("text", prompt === text ? 0 : 1);
    add("ids, tokens that differ", shareDifferent(ids, wantIds));
    const got = await streams(this.#model, [wantIds]);
    for (const [l, values] of got.resid_post.entries()) {
      const want = await this.#expected.floats(`${i}.resid_post.${l}`);
      add(`resid_post.${l}`, relativeError(values, want), LIMIT);
    }
    const last = got.logits.subarray(-this.#config.vocab_size);
    const wantLast = await this.#expected.floats(`${i}.logits_last`);
    add("logits_last", relativeError(last, wantLast), LIMIT);
    const want = [...await this.#expected.ints(`${i}.greedy`)];
    const request = { prompt: wantIds, sampling: GREEDY };
    const [reply] = await generate(this.#model, [request], {
      maxNewTokens: want.length - wantIds.length,
    });
    const ended = want.filter((id, at) =>
      at < wantIds.length || !this.#config.eos_token_ids.includes(id)
    );
    const whole = [...wantIds, ...reply!];
    add("greedy, tokens that differ", shareDifferent(whole, ended));
    add("greedy_text", tokenizer.decode(reply!) === greedy_text ? 0 : 1);
  }
}
