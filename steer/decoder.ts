import { KvCache } from "../core/kv_cache.ts";
import type { Olmo2 } from "../core/olmo2.ts";
import { DecoderPasses, MOST_STEPS } from "./decoder_passes.ts";
import {
  isRead,
  nLeft,
  type Row,
  type RowTokens,
  type Shipment,
  shipment,
} from "./decoder_row.ts";
import { checkRequest, mostRows } from "./generate_request.ts";
import type { SteeringBank } from "./interventions.ts";
import type { Parcel } from "./outbox.ts";
import { Reply, type ReplyRequest } from "./reply.ts";

/** Options of a {@link Decoder}. */
export interface DecoderOptions {
  /** Replies that are decoded at once; others wait. */
  readonly maxRows: number;
  /** Tokens that the cache may hold over all replies; as many as the adapter allows when absent. */
  readonly maxCachedTokens?: number;
  /**
   * Prompt tokens of a pass; as many as keep a GPU busy when absent. Replies under way wait for a pass, so that fewer
   * let their tokens come more evenly.
   */
  readonly prefillTokens?: number;
  /** Where the sets that requests name are. */
  readonly steering?: SteeringBank;
}

/** Steps between two readbacks where a step takes longer than {@link LONG_STEP_MS}, so that text comes more evenly. */
const FEW_STEPS = 4;
const LONG_STEP_MS = 40;
/** Readbacks that come faster than this are not waited for before the next steps are recorded: each takes at least 10 ms. */
const QUICK_MS = 100;

/**
 * Decodes many replies at once: every step is one pass over the weights for all of them. Each reply has a prompt, a
 * length, sampling settings and a steering set of its own, joins when a row is free, and leaves when it ends.
 *
 * A turn reads a part of the waiting prompts and decodes some steps. Tokens are sampled on the GPU and read back
 * several at a time. Where that goes quickly, the next steps are recorded before the last ones have arrived, so that
 * the GPU never waits for the host; steps of rows that meanwhile turn out to have ended are dropped.
 *
 * The cache takes pages as rows grow. Where none is left, rows wait for others to end; where all wait, the one that
 * joined last leaves, and reads its prompt and its reply so far again, steered as it is then, when another has ended.
 */
export class Decoder implements Disposable {
  readonly #model: Olmo2;
  readonly #maxRows: number;
  readonly #owned: DisposableStack;
  readonly #cache: KvCache;
  readonly #passes: DecoderPasses;
  #waiting: Reply[] = [];
  /** In the order in which they joined. */
  #rows: Row[] = [];
  /** Whether a row had to leave for want of pages, and none has ended since. */
  #isCrowded = false;
  #isQuick = false;
  #nSteps = FEW_STEPS;
  #lastArrival = 0;

  /**
   * Takes the memory of activations; the cache grows with what it holds.
   * @throws {RangeError} If there are more rows than the adapter holds logits of.
   */
  constructor(model: Olmo2, options: DecoderOptions) {
    const { gpu, config, nLayers } = model;
    const { maxRows, maxCachedTokens, steering, ...rest } = options;
    const most = mostRows(model);
    if (!(Number.isInteger(maxRows) && maxRows > 0 && maxRows <= most)) {
      throw new RangeError(
        `Cannot decode ${maxRows} replies at once: expected 1 to ${most}, as their logits must fit into the adapter's binding limit: ask for fewer at a time`,
      );
    }
    this.#model = model;
    this.#maxRows = maxRows;
    using owned = new DisposableStack();
    this.#cache = owned.use(
      new KvCache(gpu, config, {
        nRows: maxRows,
        nLayers,
        isShared: false,
        ...(maxCachedTokens !== undefined && { maxTokens: maxCachedTokens }),
      }),
    );
    const passes = { ...rest, cache: this.#cache, maxRows, steering };
    this.#passes = owned.use(new DecoderPasses(model, passes));
    this.#owned = owned.move();
  }

  /** Whether no reply is under way or waits. */
  get isIdle(): boolean {
    return this.#rows.length === 0 && this.#waiting.length === 0;
  }

  /** Replies that have a row now. */
  get nActive(): number {
    return this.#rows.length;
  }

  /** Replies that wait for a row. */
  get nWaiting(): number {
    return this.#waiting.length;
  }

  /** Where the sets of requests and replies are from now on. */
  set steering(bank: SteeringBank | undefined) {
    this.#passes.steering = bank;
  }

  /**
   * Takes a request; its reply joins the batch in one of the next turns.
   * @throws {RangeError} If the prompt is empty or, with `maxNewTokens`, longer than the model's context, if a number is
   * out of range, or if the steering set does not exist.
   */
  add(request: ReplyRequest): Reply {
    const { steering } = this.#passes;
    checkRequest(this.#model, request, request.maxNewTokens, steering);
    const { eos_token_ids } = this.#model.config;
    const reply = new Reply(request, request.stopIds ?? eos_token_ids);
    if (request.maxNewTokens === 0) reply.finish("length");
    else this.#waiting.push(reply);
    return reply;
  }

  /**
   * Lets replies join, computes the next tokens, and delivers those that have arrived; at once where there is nothing to do.
   * @throws {Error} If the GPU fails.
   */
  async turn(): Promise<void> {
    if (this.#passes.lacksRoom) await this.#deliver(0);
    this.#removeEnded();
    for (const row of this.#rows) this.#obey(row);
    this.#admit();
    const before = this.#passes.pending;
    const start = performance.now();
    const hasRead = this.#prefill();
    // A first token is shown at once where the next ones take long.
    if (hasRead && !this.#isQuick) await this.#deliver(0);
    const hasDecoded = this.#decode();
    if (!hasRead && !hasDecoded && before === 0) this.#giveWay();
    const nSent = this.#passes.pending - before;
    await this.#deliver(this.#isQuick && hasDecoded ? nSent : 0);
    if (hasDecoded) this.#notice(start);
  }

  /** Learns from a turn how many steps to take at once, and whether to wait for them. */
  #notice(start: number): void {
    const now = performance.now();
    const ms = now - Math.max(start, this.#lastArrival);
    this.#lastArrival = now;
    this.#isQuick = ms < QUICK_MS;
    this.#nSteps = ms / this.#nSteps > LONG_STEP_MS ? FEW_STEPS : MOST_STEPS;
  }

  #removeEnded(): void {
    this.#waiting = this.#waiting.filter(({ end }) => end === undefined);
    for (const { reply, index } of this.#rows) {
      if (reply.end === undefined) continue;
      this.#cache.release(index);
      this.#isCrowded = false;
    }
    this.#rows = this.#rows.filter(({ reply }) => reply.end === undefined);
  }

  /** Drops what is under way where a reply's steering was changed. */
  #obey(row: Row): void {
    const { reply, index, start } = row;
    if (row.nChanges === reply.nChanges) return;
    row.nChanges = reply.nChanges;
    const { request: { prompt, sampling }, ids } = reply;
    if (row.nSampled === ids.length) return;
    row.nSampled = ids.length;
    const last = ids.at(-1);
    if (last === undefined) row.nRead = start.length - 1;
    else this.#passes.setLast(row, last);
    this.#passes.sampler.begin(index, sampling, prompt, ids);
  }

  /** Gives waiting replies rows, first come first served, as far as pages go. */
  #admit(): void {
    const taken = new Set(this.#rows.map(({ index }) => index));
    for (let index = 0; index < this.#maxRows && !this.#isCrowded; index++) {
      const [reply] = this.#waiting;
      if (!reply) return;
      if (taken.has(index)) continue;
      const { request: { prompt, sampling }, ids, nChanges } = reply;
      const start = [...prompt, ...ids];
      if (!this.#cache.reserve(index, start.length)) {
        if (this.#rows.length > 0) return;
        reply.finish("memory"); // the cache is empty, and still too small
      } else {
        this.#passes.sampler.begin(index, sampling, prompt, ids);
        const nSampled = ids.length;
        this.#rows.push({ reply, index, start, nRead: 0, nSampled, nChanges });
      }
      this.#waiting.shift();
    }
  }

  /** No row can go on: the last that joined leaves its pages to the others. */
  #giveWay(): void {
    const row = this.#rows.pop();
    if (!row) return;
    this.#cache.release(row.index);
    this.#isCrowded = this.#rows.length > 0;
    if (this.#isCrowded) this.#waiting.unshift(row.reply);
    else row.reply.finish("memory");
  }

  /** One pass over what waits of prompts; whether there was any. */
  #prefill(): boolean {
    let room = this.#passes.prefillTokens;
    const parts: RowTokens[] = [];
    for (const row of this.#rows) {
      const ids = row.start.slice(row.nRead, row.nRead + room);
      if (ids.length > 0) parts.push({ row, ids, position: row.nRead });
      room -= ids.length;
    }
    if (parts.length > 0) this.#passes.prefill(parts);
    return parts.length > 0;
  }

  /** The next steps of all rows that have pages for them; whether there was one. */
  #decode(): boolean {
    const shipments = this.#rows
      .filter((row) => isRead(row) && nLeft(row) > 0)
      .map((row) => shipment(row, Math.min(this.#nSteps, nLeft(row))))
      .filter(({ row, n }) => {
        const { prompt } = row.reply.request;
        const nTokens = prompt.length + row.nSampled - 1 + n;
        return this.#cache.reserve(row.index, nTokens);
      })
      .sort((a, b) => b.n - a.n); // rows that end leave from the tail
    if (shipments.length > 0) this.#passes.decode(shipments);
    return shipments.length > 0;
  }

  /** Waits until no more than `most` parcels are under way, and gives replies their tokens in the order they joined. */
  async #deliver(most: number): Promise<void> {
    for (const parcel of await this.#passes.receive(most)) this.#open(parcel);
    if (this.#passes.lacksRoom && most === 0) this.#passes.makeRoom();
    this.#removeEnded();
  }

  #open({ tag, token, activations }: Parcel<readonly Shipment[]>): void {
    const { vocab_size } = this.#model.config;
    for (const row of this.#rows) {
      const i = tag.findIndex((shipment) => shipment.row === row);
      const { reply } = row;
      if (i < 0 || tag[i]!.nChanges !== reply.nChanges) continue;
      const steps = [...Array(tag[i]!.n).keys()];
      const nWatched = reply.steeringSet === undefined
        ? 0
        : this.#passes.steering!.watchedOf(reply.steeringSet).length;
      reply.deliver(
        steps.map((step) => token(step, i)),
        steps.map((step) => activations(step, i).slice(0, nWatched)),
        vocab_size,
      );
    }
  }

  /** Frees the memory; replies under way do not end. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
