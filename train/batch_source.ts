/**
 * What training needs of the data: batches in an order that repeats, a place
 * to go on from, and what is known of the vectors.
 * @module
 */
import { z } from "zod";
import type { RngState } from "../core/rng.ts";
import type { Recorder, Tensor } from "../gpu/mod.ts";
import type { SaeRecipe } from "./recipe.ts";
import type { RowStatistics } from "./row_statistics.ts";

/** How batches are drawn, and what is left out of them: fields of a recipe. */
export type BatchOptions =
  & Pick<SaeRecipe, "batch" | "bufferRows" | "holdOut" | "seed">
  & Partial<
    Pick<SaeRecipe, "maxNorm" | "skipTokens" | "skipBadRows" | "init">
  >;

/** Commands that fill x, f32 `[batch, d_model]`, with a batch times a scale; they can be recorded once. */
export interface BatchOnGpu {
  /**
   * Records them.
   * @throws {Error} If they were recorded before.
   */
  fill(rec: Recorder, x: Tensor, scale: number): void;
}

/** A batch: bits of bf16 `[batch, d_model]` on the host, or rows that are on the GPU already. */
export type TrainingBatch = Uint16Array<ArrayBuffer> | BatchOnGpu;

/** Where a run of batches stands. */
export interface BatchPosition {
  /** State of the draws. */
  readonly rng: RngState;
  /** Place of the oldest group in memory in the endless sequence of groups. */
  readonly firstGroup: number;
  /** Vectors drawn since that group became the oldest. */
  readonly nDrawn: number;
  /** Of vectors that a model makes: number of that group's first document in the text. */
  readonly document?: number;
  /** And place of its first token in that document. */
  readonly token?: number;
}

const count = z.int().min(0);
const word = count.max(2 ** 32 - 1);

/** Form of a {@link BatchPosition}, for checkpoints. */
export const POSITION: z.ZodType<BatchPosition> = z.object({
  rng: z.tuple([word, word, word, word]),
  firstGroup: count,
  nDrawn: count,
  document: count.exactOptional(),
  token: count.exactOptional(),
});

/** Vectors that were left out of what was read so far. */
export interface DroppedRows {
  /** For a NaN or an infinity. */
  readonly badRows: number;
  /** For a norm far above the median. */
  readonly highNorm: number;
  /** For their token. */
  readonly skippedTokens: number;
}

/** Where batches come from. */
export interface BatchSource extends Disposable {
  /** What errors call the data. */
  readonly name: string;
  /** Size of a vector. */
  readonly d_model: number;
  /** Of the vectors that are drawn from. */
  readonly statistics: RowStatistics;
  /** Where the next batch starts: after the last one that {@link next} gave. */
  readonly position: BatchPosition;
  /** What was left out; each vector is counted once, however often it is read. */
  readonly dropped: DroppedRows;
  /** Draws the next batch. */
  next(): Promise<TrainingBatch>;
  /**
   * Goes to a position of the same data, options and seed; the next batch is the one that followed there.
   * @throws {RangeError} If it is no position of this data.
   */
  restore(position: BatchPosition): void | Promise<void>;
  /** The vectors that are held out, in order, without what is left out: bits of bf16 `[n, d_model]`, a group at a time. */
  heldOut(): AsyncGenerator<Uint16Array<ArrayBuffer>>;
}
