import type { KvCache } from "../core/kv_cache.ts";
import { type Olmo2, Workspace } from "../core/olmo2.ts";
import { tokenBatch } from "../core/token_batch.ts";
import type { Recorder, Tensor } from "../gpu/mod.ts";
import {
  isRead,
  lastToken,
  type Row,
  type RowTokens,
  type Shipment,
  shipment,
} from "./decoder_row.ts";
import type { SteeredToken, SteeringBank } from "./interventions.ts";
import { Outbox, type Parcel } from "./outbox.ts";
import { Sampler } from "./sampler.ts";

/** Decoding steps between two readbacks, at most. */
export const MOST_STEPS = 8;
/** Activations of a pass over prompts; longer prompts are read in several. */
const PREFILL_BYTES = 2 ** 28;
const MOST_PREFILL_TOKENS = 2048;

/** What passes are made for. */
export interface PassesOptions {
  readonly cache: KvCache;
  readonly maxRows: number;
  readonly steering: SteeringBank | undefined;
  /** Prompt tokens of a pass; as many as keep a GPU busy when absent. */
  readonly prefillTokens?: number;
}

/** The passes of a {@link Decoder}: what it records, with the memory for it. */
export class DecoderPasses implements Disposable {
  /** Chooses tokens. */
  readonly sampler: Sampler;
  /** Most prompt tokens of a pass. */
  readonly prefillTokens: number;
  /** Where steering sets are. */
  steering: SteeringBank | undefined;
  readonly #model: Olmo2;
  readonly #cache: KvCache;
  readonly #maxRows: number;
  readonly #owned: DisposableStack;
  readonly #work: Workspace;
  readonly #lastResid: Tensor; // f32 [maxRows, d_model]: the stream at each prompt's last token
  readonly #normed: Tensor; // f32 [maxRows, d_model]
  readonly #logits: Tensor; // f32 [maxRows, vocab]
  readonly #tokens: Tensor; // u32 [maxRows], in the order of the step's rows
  readonly #last: Tensor; // u32 [maxRows], each row's last token, by its index
  #outbox!: Outbox<readonly Shipment[]>;
  #captured: Tensor | undefined; // f32 [tokens of a pass, nSlots]
  #lastCaptured: Tensor | undefined; // f32 [maxRows, nSlots]

  /** Takes the memory at once, but for what is captured. */
  constructor(model: Olmo2, options: PassesOptions) {
    const { gpu, config } = model;
    const { cache, maxRows, steering, prefillTokens } = options;
    this.#model = model;
    this.#cache = cache;
    this.steering = steering;
    this.#maxRows = maxRows;
    this.prefillTokens = Math.min(
      prefillTokens ?? MOST_PREFILL_TOKENS,
      Workspace.mostTokens(gpu, config, PREFILL_BYTES),
    );
    using owned = new DisposableStack();
    const tensor = (label: string, dtype: "f32" | "u32", shape: number[]) =>
      owned.use(gpu.tensor(label, dtype, shape));
    this.#work = owned.use(
      new Workspace(gpu, config, Math.max(maxRows, this.prefillTokens)),
    );
    this.sampler = owned.use(new Sampler(gpu, config.vocab_size, maxRows));
    this.#lastResid = tensor("last_resid", "f32", [maxRows, config.d_model]);
    this.#normed = tensor("last_final_norm", "f32", [maxRows, config.d_model]);
    this.#logits = tensor("last_logits", "f32", [maxRows, config.vocab_size]);
    this.#tokens = tensor("tokens", "u32", [maxRows]);
    this.#last = tensor("last_tokens", "u32", [maxRows]);
    this.#makeOutbox();
    this.#owned = owned.move();
  }

  /** Parcels of tokens that have not arrived. */
  get pending(): number {
    return this.#outbox.pending;
  }

  /** Whether the bank captures more than there is room for; call {@link makeRoom} when nothing is under way. */
  get lacksRoom(): boolean {
    return (this.steering?.nSlots ?? 0) > this.#outbox.shape.nSlots;
  }

  /** Makes room for what the bank captures now. */
  makeRoom(): void {
    this.#freeOutbox();
    this.#makeOutbox();
  }

  /** Waits until no more than `most` parcels are under way, and returns what has arrived, oldest first. */
  receive(most: number): Promise<Parcel<readonly Shipment[]>[]> {
    return this.#outbox.receive(most);
  }

  /** Sets the token that a row's next step reads. */
  setLast({ index }: Row, id: number): void {
    this.#last.write(Uint32Array.of(id), index);
  }

  /** One pass over parts of prompts, and a first token of each row that has read all of its own. */
  prefill(parts: readonly RowTokens[]): void {
    for (const { row, ids } of parts) row.nRead += ids.length;
    const ready = parts.map(({ row }) => row).filter(isRead);
    this.#load(parts);
    this.#model.gpu.record("prefill", (rec) => {
      const resid = this.#forward(rec);
      this.#copyLast(rec, resid, parts, ready);
      if (ready.length === 0) return;
      this.#choose(rec, {
        resid: this.#lastResid.rows(0, ready.length),
        captured: this.#lastCaptured?.rows(0, ready.length),
        rows: ready,
        step: 0,
      });
      this.#finishBatch(rec, ready.map((row) => shipment(row, 1)));
    });
    for (const row of ready) row.nSampled++;
  }

  /** Records the steps of shipments, those with the most steps first; each step is one submit. */
  decode(shipments: readonly Shipment[]): void {
    const nSteps = shipments[0]!.n;
    for (let step = 0; step < nSteps; step++) {
      const rows = shipments.filter(({ n }) => n > step).map(({ row }) => row);
      this.#load(rows.map(lastToken));
      this.#model.gpu.record("decode", (rec) => {
        const { ids } = this.#work.tokens;
        if (step > 0) rec.copy(this.#tokens, ids, { nRows: rows.length });
        else this.#copyRuns(rec, this.#last, ids, rows, "from");
        const resid = this.#forward(rec);
        const captured = this.#captured?.rows(0, rows.length);
        this.#choose(rec, { resid, captured, rows, step });
        if (step === nSteps - 1) this.#finishBatch(rec, shipments);
      });
      for (const row of rows) row.nSampled++;
    }
  }

  /** Gathers what the last tokens of prompts left, in the order of `ready`. */
  #copyLast(
    rec: Recorder,
    resid: Tensor,
    parts: readonly RowTokens[],
    ready: readonly Row[],
  ): void {
    let nTokens = 0;
    for (const { row, ids } of parts) {
      nTokens += ids.length;
      const toRow = ready.indexOf(row);
      if (toRow < 0) continue;
      const places = { fromRow: nTokens - 1, toRow, nRows: 1 };
      rec.copy(resid, this.#lastResid, places);
      if (this.#captured) {
        rec.copy(this.#captured, this.#lastCaptured!, places);
      }
    }
  }

  /** Queues tokens and their steering. */
  #load(parts: readonly RowTokens[]): void {
    this.#work.load(tokenBatch(
      this.#model.config,
      parts.map(({ row, ...part }) => ({ ...part, row: row.index })),
    ));
    this.steering?.loadPass(parts.flatMap(({ row, ids, position }) => {
      const { steeringSet, request: { positions, prompt } } = row.reply;
      return ids.map((_, j): SteeredToken => {
        const n = Math.max(0, position + j + 1 - prompt.length);
        const isLeft = n === 0 && positions === "generated";
        return { set: isLeft ? undefined : steeringSet, n };
      });
    }));
  }

  /** The blocks, with steering; the residual stream of the pass. */
  #forward(rec: Recorder): Tensor {
    return this.#model.forward(rec, this.#work, this.#cache, {
      hook: (rec, layer, resid) => {
        const captured = this.#captured?.rows(0, resid.nRows);
        this.steering?.run(rec, layer, resid, captured);
      },
    });
  }

  /** Samples one token for each of `rows` from its row of `resid`, f32 `[rows, d_model]`. */
  #choose(
    rec: Recorder,
    { resid, captured, rows, step }: {
      resid: Tensor;
      captured: Tensor | undefined;
      rows: readonly Row[];
      step: number;
    },
  ): void {
    const n = rows.length;
    const [normed, logits] = [this.#normed.rows(0, n), this.#logits.rows(0, n)];
    const tokens = this.#tokens.rows(0, n);
    this.#model.finalNorm(rec, resid, normed);
    this.#model.logits(rec, normed, logits);
    const indices = rows.map(({ index }) => index);
    const steps = rows.map(({ nSampled }) => nSampled);
    this.sampler.sample(rec, logits, indices, steps, tokens);
    this.#outbox.put(rec, step, tokens, captured);
  }

  /** Keeps each row's last token for its next step, and sends all tokens off. */
  #finishBatch(rec: Recorder, shipments: readonly Shipment[]): void {
    const nSteps = shipments[0]!.n;
    const rows = shipments.filter(({ n }) => n === nSteps)
      .map(({ row }) => row);
    this.#copyRuns(rec, this.#tokens, this.#last, rows, "to");
    this.#outbox.send(rec, shipments);
  }

  /** Copies words between the order of a batch and that of the rows' indices, as many at once as lie together in both. */
  #copyRuns(
    rec: Recorder,
    source: Tensor,
    target: Tensor,
    rows: readonly Row[],
    indices: "from" | "to",
  ): void {
    for (let start = 0; start < rows.length;) {
      const first = rows[start]!.index;
      let n = 1;
      while (rows[start + n]?.index === first + n) n++;
      const [fromRow, toRow] = indices === "from"
        ? [first, start]
        : [start, first];
      rec.copy(source, target, { fromRow, toRow, nRows: n });
      start += n;
    }
  }

  #makeOutbox(): void {
    const { gpu } = this.#model;
    const nSlots = this.steering?.nSlots ?? 0;
    const maxRows = this.#maxRows;
    this.#outbox = new Outbox(gpu, { maxRows, maxSteps: MOST_STEPS, nSlots });
    if (nSlots === 0) return;
    const tensor = (label: string, nRows: number) =>
      gpu.tensor(label, "f32", [nRows, nSlots]);
    this.#captured = tensor("captured", this.#work.maxTokens);
    this.#lastCaptured = tensor("last_captured", maxRows);
  }

  #freeOutbox(): void {
    this.#outbox[Symbol.dispose]();
    this.#captured?.[Symbol.dispose]();
    this.#lastCaptured?.[Symbol.dispose]();
  }

  /** Frees the memory; the cache stays. */
  [Symbol.dispose](): void {
    this.#freeOutbox();
    this.#owned.dispose();
  }
}
