/**
 * Leaves out vectors that would spoil training: those that are not finite, those
 * of tokens that nobody wants, and those far longer than the rest.
 * @module
 */
import type { BatchOptions, DroppedRows } from "./batch_source.ts";

/** Vectors that are kept, and how many are not. */
export interface FilteredRows {
  /** Bits of bf16 `[n, d_model]`; the array that was given where nothing is left out. */
  readonly rows: Uint16Array<ArrayBuffer>;
  /** What was left out. */
  readonly dropped: DroppedRows;
}

/** No vector left out. */
export const NONE_DROPPED: DroppedRows = {
  badRows: 0,
  highNorm: 0,
  skippedTokens: 0,
};

/** Sum of two counts. */
export function addDropped(a: DroppedRows, b: DroppedRows): DroppedRows {
  return {
    badRows: a.badRows + b.badRows,
    highNorm: a.highNorm + b.highNorm,
    skippedTokens: a.skippedTokens + b.skippedTokens,
  };
}

/** Decides by vector; the first reason that holds is the one that is counted. */
export class RowFilter {
  /** Longest norm that is kept; set once the median norm is known. */
  limit: number = Infinity;
  /** Most times the median norm; 0 for any. */
  readonly maxNorm: number;
  /** Whether vectors that are not finite are counted and left out, not refused. */
  readonly skipBadRows: boolean;
  readonly #skipTokens: ReadonlySet<number>;

  /** A filter that does not know the median norm yet. */
  constructor(
    { maxNorm = 0, skipTokens = [], skipBadRows = false }: Pick<
      BatchOptions,
      "maxNorm" | "skipTokens" | "skipBadRows"
    >,
  ) {
    this.maxNorm = maxNorm;
    this.skipBadRows = skipBadRows;
    this.#skipTokens = new Set(skipTokens);
  }

  /** Whether tokens must be known. */
  get needsTokens(): boolean {
    return this.#skipTokens.size > 0;
  }

  /** Whether the vectors of a token are left out. */
  skipsToken(id: number): boolean {
    return this.#skipTokens.has(id);
  }

  /** Sets the limit from the norms of a sample, in any order. */
  learn(norms: Float64Array): void {
    if (this.maxNorm > 0 && norms.length > 0) {
      this.limit = this.maxNorm * medianOf(norms);
    }
  }

  /**
   * Applies it.
   * @param rows Bits of bf16 `[n, d_model]`.
   * @param tokens Token of each row, `[n]`; needed where {@link needsTokens}.
   */
  apply(
    rows: Uint16Array<ArrayBuffer>,
    d_model: number,
    tokens?: Int32Array,
  ): FilteredRows {
    const hasLimit = this.limit < Infinity;
    if (!this.skipBadRows && !this.needsTokens && !hasLimit) {
      return { rows, dropped: NONE_DROPPED };
    }
    const n = rows.length / d_model;
    const norms = hasLimit ? rowNormsOf(rows, d_model) : undefined;
    const dropped = { badRows: 0, highNorm: 0, skippedTokens: 0 };
    const kept: number[] = [];
    for (let row = 0; row < n; row++) {
      if (this.skipBadRows && isBad(rows, row * d_model, d_model)) {
        dropped.badRows++;
      } else if (tokens && this.#skipTokens.has(tokens[row]!)) {
        dropped.skippedTokens++;
      } else if (norms && norms[row]! > this.limit) {
        dropped.highNorm++;
      } else {
        kept.push(row);
      }
    }
    return {
      rows: kept.length === n ? rows : rowsAt(rows, d_model, kept),
      dropped,
    };
  }
}

/** L2 norms of rows of bf16, in float64, `[n]`. */
export function rowNormsOf(rows: Uint16Array, d_model: number): Float64Array {
  const word = new Uint32Array(1);
  const value = new Float32Array(word.buffer);
  const norms = new Float64Array(rows.length / d_model);
  for (let row = 0, at = 0; row < norms.length; row++) {
    let squares = 0;
    for (const end = at + d_model; at < end; at++) {
      word[0] = rows[at]! << 16;
      squares += value[0]! * value[0]!;
    }
    norms[row] = Math.sqrt(squares);
  }
  return norms;
}

/** The middle value, the upper one of two; sorts a copy. */
export function medianOf(values: Float64Array): number {
  return values.toSorted()[Math.floor(values.length / 2)]!;
}

function isBad(rows: Uint16Array, start: number, d_model: number): boolean {
  for (let at = start; at < start + d_model; at++) {
    if ((rows[at]! & 0x7f80) === 0x7f80) return true;
  }
  return false;
}

function rowsAt(
  rows: Uint16Array<ArrayBuffer>,
  d_model: number,
  places: readonly number[],
): Uint16Array<ArrayBuffer> {
  const kept = new Uint16Array(places.length * d_model);
  for (const [i, row] of places.entries()) {
    kept.set(rows.subarray(row * d_model, (row + 1) * d_model), i * d_model);
  }
  return kept;
}
