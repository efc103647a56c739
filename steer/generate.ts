import { KvCache } from "../core/kv_cache.ts";
import { type Olmo2, Workspace } from "../core/olmo2.ts";
import { passes } from "../core/score.ts";
import { type SequencePart, tokenBatch } from "../core/token_batch.ts";
import { ReadbackRing, type Recorder, type Tensor } from "../gpu/mod.ts";
import {
  checkRequests,
  type GenerateOptions,
  type GenerateRequest,
} from "./generate_request.ts";
import { Sampler } from "./sampler.ts";

export {
  type GenerateOptions,
  type GenerateRequest,
  GREEDY,
  type Sampling,
  type SteeredPositions,
} from "./generate_request.ts";

/** Tokens decoded between two readbacks, since each readback takes at least 10 ms. */
const TOKENS_PER_READ = 8;
/** Prompt tokens of one prefill pass. */
const PREFILL_TOKENS = 2048;

/**
 * Generates all replies in one batch; every decoding step is one pass over the weights.
 * Tokens are sampled on the GPU and read back several at a time.
 * @returns New token ids per request, without the one that ended it.
 * @throws {RangeError} If a prompt is empty or, with `maxNewTokens`, longer than the model's context,
 * if a number is out of range, or if there are more replies than the adapter can hold.
 * @throws {Error} If logits are not finite, as too strong a steering makes them.
 */
export async function generate(
  model: Olmo2,
  requests: readonly GenerateRequest[],
  options: GenerateOptions,
): Promise<number[][]> {
  checkRequests(model, requests, options);
  if (requests.length === 0 || options.maxNewTokens === 0) {
    return requests.map(() => []);
  }
  using decoder = new Decoder(model, requests, options);
  while (decoder.isActive && !options.signal?.aborted) {
    if (decoder.nGenerated === 0) decoder.prefill();
    else decoder.decode();
    await decoder.read();
  }
  return decoder.replies;
}

/** One reply under way. */
interface Row {
  readonly request: number;
  /** First slot in the cache. */
  readonly base: number;
  /** Tokens in the cache: the prompt, and all new tokens but the last. */
  nCached: number;
  lastId: number;
}

/** The state of a batch of replies: rows leave when they end, after each readback. */
class Decoder implements Disposable {
  readonly replies: number[][];
  readonly #model: Olmo2;
  readonly #requests: readonly GenerateRequest[];
  readonly #options: GenerateOptions;
  readonly #stopIds: ReadonlySet<number>;
  readonly #owned: DisposableStack;
  readonly #cache: KvCache;
  readonly #work: Workspace;
  readonly #sampler: Sampler;
  readonly #lastResid: Tensor; // f32 [requests, d_model]: the stream at each prompt's last token
  readonly #normed: Tensor; // f32 [requests, d_model]
  readonly #logits: Tensor; // f32 [requests, vocab]
  readonly #tokens: Tensor; // u32 [requests]
  readonly #sampled: Tensor; // u32 [TOKENS_PER_READ · requests]: of each step one run of tokens
  readonly #ring: ReadbackRing<{ rows: readonly Row[]; nSteps: number }>;
  #active: Row[] = [];
  #nGenerated = 0;

  constructor(
    model: Olmo2,
    requests: readonly GenerateRequest[],
    options: GenerateOptions,
  ) {
    const { gpu, config } = model;
    const n = requests.length;
    this.#model = model;
    this.#requests = requests;
    this.#options = options;
    this.#stopIds = new Set(options.stopIds ?? config.eos_token_ids);
    this.replies = requests.map(() => []);
    let nSlots = 0;
    for (const [request, { prompt }] of requests.entries()) {
      const lastId = prompt.at(-1)!;
      this.#active.push({ request, base: nSlots, nCached: 0, lastId });
      nSlots += prompt.length + options.maxNewTokens;
    }
    const most = Math.max(n, ...this.#prefillPasses().map(({ T }) => T));
    using owned = new DisposableStack();
    const { nLayers } = model;
    this.#cache = owned.use(
      new KvCache(gpu, config, { nSlots, nLayers, isShared: false }),
    );
    this.#work = owned.use(new Workspace(gpu, config, most));
    const tensor = (label: string, dtype: "f32" | "u32", shape: number[]) =>
      owned.use(gpu.tensor(label, dtype, shape));
    this.#sampler = owned.use(new Sampler(gpu, config.vocab_size, n));
    for (const [request, { sampling, prompt }] of requests.entries()) {
      this.#sampler.begin(request, sampling, prompt);
    }
    this.#lastResid = tensor("last_resid", "f32", [n, config.d_model]);
    this.#normed = tensor("last_final_norm", "f32", [n, config.d_model]);
    this.#logits = tensor("last_logits", "f32", [n, config.vocab_size]);
    this.#tokens = tensor("tokens", "u32", [n]);
    this.#sampled = tensor("sampled", "u32", [TOKENS_PER_READ * n]);
    this.#ring = owned.use(new ReadbackRing(gpu, this.#sampled));
    this.#owned = owned.move();
  }

  get isActive(): boolean {
    return this.#active.length > 0;
  }

  /** New tokens of every active row, computed or under way. */
  get nGenerated(): number {
    return this.#nGenerated;
  }

  /** Runs the prompts, as many at once as fit into a pass, and samples every reply's first token. */
  prefill(): void {
    const { gpu } = this.#model;
    const rows = this.#active;
    const isSteered = this.#options.positions !== "generated";
    for (const { start, end } of this.#prefillPasses()) {
      const some = rows.slice(start, end);
      const parts = some.map(({ request, base }) => ({
        ids: this.#requests[request]!.prompt,
        base,
        position: 0,
      }));
      this.#loadPass(some, parts, isSteered);
      gpu.record("prefill", (rec) => {
        const resid = this.#forward(rec);
        let nTokens = 0;
        for (const [i, { ids }] of parts.entries()) {
          nTokens += ids.length;
          const places = { fromRow: nTokens - 1, toRow: start + i, nRows: 1 };
          rec.copy(resid, this.#lastResid, places);
        }
      });
      for (const [i, row] of some.entries()) row.nCached = parts[i]!.ids.length;
    }
    gpu.record("first tokens", (rec) => {
      this.#sample(rec, rows, this.#lastResid, 0);
      this.#ring.copy(rec, { rows, nSteps: 1 });
    });
    this.#nGenerated = 1;
  }

  /** Records the next steps, up to {@link TOKENS_PER_READ}, each one submit. */
  decode(): void {
    const { gpu } = this.#model;
    const rows = this.#active;
    const nLeft = this.#options.maxNewTokens - this.#nGenerated;
    const nSteps = Math.min(TOKENS_PER_READ, nLeft);
    for (let step = 0; step < nSteps; step++) {
      // From the second step on the ids are on the GPU only; the last known ones stand in for them here.
      const parts = rows.map(({ base, nCached, lastId }) => ({
        ids: [lastId],
        base,
        position: nCached,
      }));
      this.#loadPass(rows, parts, true);
      gpu.record("decode", (rec) => {
        const { ids } = this.#work.tokens;
        if (step > 0) rec.copy(this.#tokens, ids, { nRows: rows.length });
        this.#sample(rec, rows, this.#forward(rec), step);
        if (step === nSteps - 1) this.#ring.copy(rec, { rows, nSteps });
      });
      for (const row of rows) row.nCached++;
      this.#nGenerated++;
    }
  }

  /** Waits for the sampled tokens and lets the rows that have ended go. */
  async read(): Promise<void> {
    await this.#ring.drain();
    for (const { tag: { rows, nSteps }, bytes } of this.#ring.take()) {
      const sampled = new Uint32Array(bytes);
      this.#active = rows.filter((row, i) =>
        this.#deliver(
          row,
          Array.from(
            { length: nSteps },
            (_, step) => sampled[step * rows.length + i]!,
          ),
        )
      );
    }
    if (this.#nGenerated === this.#options.maxNewTokens) this.#active = [];
  }

  /** Appends a row's new tokens up to a stop; whether it goes on. */
  #deliver(row: Row, ids: readonly number[]): boolean {
    const stop = ids.findIndex((id) => this.#stopIds.has(id));
    const fresh = stop < 0 ? ids : ids.slice(0, stop);
    if (fresh.some((id) => id >= this.#model.config.vocab_size)) {
      throw new Error(
        "Cannot choose the next token: expected finite logits: got NaN or infinity: steer less strongly",
      );
    }
    this.replies[row.request]!.push(...fresh);
    if (fresh.length > 0) this.#options.onTokens?.(row.request, fresh);
    row.lastId = ids.at(-1)!;
    return stop < 0;
  }

  #prefillPasses(): { start: number; end: number; T: number }[] {
    const lengths = this.#requests.map(({ prompt }) => prompt.length);
    return passes(lengths, PREFILL_TOKENS).map(({ start, end }) => {
      const T = lengths.slice(start, end).reduce((sum, n) => sum + n, 0);
      return { start, end, T };
    });
  }

  #loadPass(
    rows: readonly Row[],
    parts: readonly SequencePart[],
    isSteered: boolean,
  ): void {
    const batch = tokenBatch(this.#model.config, parts);
    this.#work.load(batch);
    const { steering } = this.#options;
    if (!steering) return;
    steering.loadPass(parts.flatMap(({ ids }, i) => {
      const { steeringSet } = this.#requests[rows[i]!.request]!;
      const set = isSteered ? steeringSet : undefined;
      return Array.from(ids, () => ({ set, n: this.#nGenerated }));
    }));
  }

  /** The blocks, with steering; the residual stream of the pass. */
  #forward(rec: Recorder): Tensor {
    const { steering } = this.#options;
    return this.#model.forward(rec, this.#work, this.#cache, {
      hook: (rec, layer, resid) => steering?.run(rec, layer, resid),
    });
  }

  /** Samples one token for each row of `resid`, f32 `[rows, d_model]`. */
  #sample(
    rec: Recorder,
    rows: readonly Row[],
    resid: Tensor,
    step: number,
  ): void {
    const n = resid.nRows;
    const some = (tensor: Tensor) => tensor.rows(0, n);
    const [normed, logits] = [some(this.#normed), some(this.#logits)];
    const tokens = some(this.#tokens);
    this.#model.finalNorm(rec, resid, normed);
    this.#model.logits(rec, normed, logits);
    this.#sampler.sample(
      rec,
      logits,
      rows.map(({ request }) => request),
      rows.map(() => this.#nGenerated),
      tokens,
    );
    rec.copy(tokens, this.#sampled, { toRow: step * n });
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
