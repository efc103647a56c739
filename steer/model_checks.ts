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
import { KvCache } from "../core/kv_cache.ts";
import { Olmo2, Workspace } from "../core/olmo2.ts";
import { type Olmo2Config, readModelConfig } from "../core/olmo2_config.ts";
import { SaeFile } from "../core/sae_file.ts";
import { openCheckpoint, type Safetensors } from "../core/safetensors.ts";
import type { Folder } from "../core/source.ts";
import { wholeSequences } from "../core/token_batch.ts";
import { Tokenizer } from "../core/tokenizer.ts";
import type { Gpu, Tensor } from "../gpu/mod.ts";
import { generate, GREEDY } from "./generate.ts";
import {
  type Intervention,
  type SteerEncoding,
  SteeringBank,
} from "./interventions.ts";

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
    if (this.#expected.tensors.has("half_depth_hidden_states_last")) {
      await compare("half_depth_hidden_states_last", got.halfDepth);
    }
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
    for (
      const [i, { chat, text, greedy_text }] of (this.#json.cases ?? [])
        .entries()
    ) {
      const prompt = tokenizer.applyChatTemplate(chat, {
        addGenerationPrompt: true,
      });
      const ids = tokenizer.encode(prompt, { addSpecial: false });
      const wantIds = [...await this.#expected.ints(`${i}.ids`)];
      this.#checks.push(checkOf(`${i}.text`, prompt === text ? 0 : 1, 0));
      this.#checks.push(
        checkOf(
          `${i}.ids, tokens that differ`,
          shareDifferent(ids, wantIds),
          0,
        ),
      );
      const got = await streams(this.#model, [wantIds]);
      for (const [l, values] of got.resid_post.entries()) {
        const want = await this.#expected.floats(`${i}.resid_post.${l}`);
        this.#checks.push(
          checkOf(`${i}.resid_post.${l}`, relativeError(values, want), LIMIT),
        );
      }
      const last = got.logits.subarray(-this.#config.vocab_size);
      const wantLast = await this.#expected.floats(`${i}.logits_last`);
      this.#checks.push(
        checkOf(`${i}.logits_last`, relativeError(last, wantLast), LIMIT),
      );
      const want = [...await this.#expected.ints(`${i}.greedy`)];
      const [reply] = await generate(this.#model, [{
        prompt: wantIds,
        sampling: GREEDY,
      }], {
        maxNewTokens: want.length - wantIds.length,
      });
      const ended = want.filter((id, at) =>
        at < wantIds.length || !this.#config.eos_token_ids.includes(id)
      );
      this.#checks.push(
        checkOf(
          `${i}.greedy, tokens that differ`,
          shareDifferent([...wantIds, ...reply!], ended),
          0,
        ),
      );
      this.#checks.push(
        checkOf(
          `${i}.greedy_text`,
          tokenizer.decode(reply!) === greedy_text ? 0 : 1,
          0,
        ),
      );
    }
  }
}

/** Everything a pass over whole sequences computes, tokens one after the other. */
interface Streams {
  readonly logits: Float32Array; // [T, vocab]
  readonly resid_post: readonly Float32Array[]; // per block, [T, d_model]
  readonly halfDepth: Float32Array; // [T, d_model]: final norm of resid_post[n_layers/2 - 1]
}

async function streams(
  model: Olmo2,
  sequences: readonly (readonly number[])[],
  bank?: SteeringBank,
): Promise<Streams> {
  const { gpu, config } = model;
  const batch = wholeSequences(config, sequences);
  const T = batch.ids.length;
  using owned = new DisposableStack();
  const f32 = (label: string, width: number): Tensor =>
    owned.use(gpu.tensor(label, "f32", [T, width]));
  const work = owned.use(new Workspace(gpu, config, T));
  const cache = owned.use(
    new KvCache(gpu, config, {
      nSlots: T,
      nLayers: model.nLayers,
      isShared: true,
    }),
  );
  const captured = Array.from(
    { length: model.nLayers },
    (_, l) => f32(`resid_post[${l}]`, config.d_model),
  );
  const [halfDepth, normed] = [
    f32("half_depth", config.d_model),
    f32("final_norm", config.d_model),
  ];
  const logits = f32("logits", config.vocab_size);
  const [begin, end] = bank?.range(0) ?? [0, 0];
  const ranges = owned.use(gpu.tensor("steered.ranges", "u32", [T, 2]));
  ranges.write(
    Uint32Array.from({ length: 2 * T }, (_, i) => i % 2 === 0 ? begin : end),
  );
  work.load(batch);
  gpu.record("verify", (rec) => {
    const resid = model.forward(rec, work, cache, {
      hook: (rec, l, resid) => {
        if (bank?.layer === l) bank.run(rec, resid, ranges);
        rec.copy(resid, captured[l]!);
      },
    });
    model.finalNorm(
      rec,
      captured[Math.max(0, Math.floor(config.n_layers / 2) - 1)]!,
      halfDepth,
    );
    model.finalNorm(rec, resid, normed);
    model.logits(rec, normed, logits);
  });
  return {
    logits: await gpu.read(logits),
    resid_post: await Promise.all(captured.map((tensor) => gpu.read(tensor))),
    halfDepth: await gpu.read(halfDepth),
  };
}
