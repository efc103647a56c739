import {
  type Gpu,
  ReadbackRing,
  type Recorder,
  type Tensor,
} from "../gpu/mod.ts";

/** Room for sampled tokens, and for what was captured with them. */
export interface OutboxShape {
  /** Rows that a step samples, at most. */
  readonly maxRows: number;
  /** Steps of a parcel, at most. */
  readonly maxSteps: number;
  /** Watched features of a row, at most. */
  readonly nSlots: number;
}

/** What one readback brings: of each step, a token and the captured activations of each row. */
export interface Parcel<Tag> {
  readonly tag: Tag;
  /** Token of row `i` of the batch at step `step`. */
  token(step: number, i: number): number;
  /** Captured activations of row `i` at step `step`. */
  activations(step: number, i: number): number[];
}

/**
 * Sampled tokens on their way to the host, several steps at a time, since each readback takes at least 10 ms in Deno
 * whatever it reads.
 */
export class Outbox<Tag> implements Disposable {
  /** Sizes. */
  readonly shape: OutboxShape;
  readonly #owned = new DisposableStack();
  readonly #words: Tensor; // u32 [maxSteps · maxRows · (1 + nSlots)]: all tokens, then all activations
  readonly #ring: ReadbackRing<Tag>;

  /** Takes the memory at once. */
  constructor(gpu: Gpu, shape: OutboxShape) {
    const { maxRows, maxSteps, nSlots } = shape;
    this.shape = shape;
    this.#words = this.#owned.use(
      gpu.tensor("outbox", "u32", [maxSteps * maxRows * (1 + nSlots)]),
    );
    this.#ring = this.#owned.use(new ReadbackRing(gpu, this.#words));
  }

  /** Parcels that have not arrived. */
  get pending(): number {
    return this.#ring.pending;
  }

  /** Records that a step's tokens, u32 `[n]`, and its rows of activations, f32 `[n, nSlots]`, go along. */
  put(
    rec: Recorder,
    step: number,
    tokens: Tensor,
    activations: Tensor | undefined,
  ): void {
    const { maxRows, maxSteps, nSlots } = this.shape;
    const n = tokens.nRows;
    rec.copy(tokens, this.#words, { toRow: step * maxRows, nRows: n });
    if (!activations || nSlots === 0) return;
    const words = activations.as("captured words", "u32", [n * nSlots]);
    rec.copy(words, this.#words, {
      toRow: (maxSteps + step * nSlots) * maxRows,
    });
  }

  /** Records the readback of all that was put. */
  send(rec: Recorder, tag: Tag): void {
    this.#ring.copy(rec, tag);
  }

  /** Waits until no more than `most` parcels are under way, and returns what has arrived, oldest first. */
  async receive(most: number): Promise<Parcel<Tag>[]> {
    await this.#ring.drain(most);
    const { maxRows, maxSteps, nSlots } = this.shape;
    return this.#ring.take().map(({ tag, bytes }) => {
      const tokens = new Uint32Array(bytes);
      const floats = new Float32Array(bytes);
      return {
        tag,
        token: (step, i) => tokens[step * maxRows + i]!,
        activations: (step, i) => {
          const start = (maxSteps + step * nSlots) * maxRows + i * nSlots;
          return [...floats.subarray(start, start + nSlots)];
        },
      };
    });
  }

  /** Frees the memory; parcels under way never arrive. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
