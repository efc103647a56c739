/**
 * What collected vectors are like: norms, by position too, their mean, and the
 * tokens that they are of.
 * @module
 */
import type { ResidualFolder, ResidualRows } from "../core/residuals.ts";
import { RowSums } from "./row_sums.ts";

/** Vectors at a range of positions. */
export interface NormAtPosition {
  /** First position and last one, both included, from 0. */
  readonly from: number;
  readonly to: number;
  /** How many vectors there are. */
  readonly n: number;
  /** Mean of their L2 norms. */
  readonly meanNorm: number;
}

/** Vectors of a token. */
export interface TokenShare {
  readonly id: number;
  /** How many there are. */
  readonly n: number;
  /** Part of all vectors that record their token, 0 to 1. */
  readonly share: number;
}

/** What is known of the vectors of a folder. */
export interface ResidualStats {
  /** How many there are. */
  readonly n: number;
  readonly d_model: number;
  /** Of their L2 norms. */
  readonly meanNorm: number;
  readonly minNorm: number;
  readonly maxNorm: number;
  /** √d_model / meanNorm: scales the mean norm to √d_model. */
  readonly scale: number;
  /** L2 norm of their mean. */
  readonly normOfMean: number;
  /** Mean of Σ_j (x − mean)². */
  readonly variance: number;
  /** Their mean, `[d_model]`. */
  readonly mean: readonly number[];
  /** Norms at each position; empty where positions are not recorded. */
  readonly byPosition: readonly NormAtPosition[];
  /** Different tokens. */
  readonly nTokenIds: number;
  /** The most frequent tokens, most frequent first; empty where tokens are not recorded. */
  readonly tokens: readonly TokenShare[];
}

/** Positions are counted apart up to here; a false position must not claim memory. */
const MOST_POSITIONS = 2 ** 20;
const MOST_TOKENS = 20;

/**
 * Reads all vectors of a folder and measures them.
 * @param options.onRows Called with the vectors of each row group that was measured.
 * @throws {RangeError} If a vector is not finite, or a position above a million.
 */
export async function residualStats(
  folder: ResidualFolder,
  { signal, onRows }: {
    readonly signal?: AbortSignal;
    readonly onRows?: (n: number) => void;
  } = {},
): Promise<ResidualStats> {
  const measure = new StatsMeasure(folder.manifest.model.d_model);
  for await (const rows of folder.batches()) {
    signal?.throwIfAborted();
    measure.add(rows, folder.name);
    onRows?.(rows.n_rows);
  }
  return measure.finish();
}

class StatsMeasure {
  readonly #sums: RowSums;
  readonly #d_model: number;
  #minNorm = Infinity;
  #maxNorm = 0;
  readonly #atPosition: { n: number; norms: number }[] = [];
  readonly #ofToken = new Map<number, number>();
  #nWithToken = 0;

  constructor(d_model: number) {
    this.#d_model = d_model;
    this.#sums = new RowSums(d_model);
  }

  add({ rows, d_model, n_rows, ...labels }: ResidualRows, name: string): void {
    if (d_model !== this.#d_model) {
      throw new RangeError(
        `Cannot measure "${name}": expected vectors of ${this.#d_model} values: got ${d_model}: its shards are of different models`,
      );
    }
    const norms = new Float64Array(n_rows);
    this.#sums.add(rows, norms);
    for (const norm of norms) {
      this.#minNorm = Math.min(this.#minNorm, norm);
      this.#maxNorm = Math.max(this.#maxNorm, norm);
    }
    for (const [i, position] of labels.positions?.entries() ?? []) {
      if (!(position >= 0 && position < MOST_POSITIONS)) {
        throw new RangeError(
          `Cannot measure "${name}": expected positions from 0 to ${
            MOST_POSITIONS - 1
          }: got ${position}: check it with ./ocs data check`,
        );
      }
      const at = this.#atPosition[position] ??= { n: 0, norms: 0 };
      at.n++;
      at.norms += norms[i]!;
    }
    for (const id of labels.token_ids ?? []) {
      this.#ofToken.set(id, (this.#ofToken.get(id) ?? 0) + 1);
      this.#nWithToken++;
    }
  }

  finish(): ResidualStats {
    const { n, meanNorm } = this.#sums;
    const mean = [...this.#sums.mean()];
    // Sparse: positions that no vector has are passed over.
    const byPosition: NormAtPosition[] = [];
    this.#atPosition.forEach(({ n, norms }, position) =>
      byPosition.push({ from: position, to: position, n, meanNorm: norms / n })
    );
    const tokens = [...this.#ofToken].sort(([a, n], [b, m]) => m - n || a - b)
      .slice(0, MOST_TOKENS)
      .map(([id, n]) => ({ id, n, share: n / this.#nWithToken }));
    return {
      n,
      d_model: this.#d_model,
      meanNorm,
      minNorm: this.#minNorm,
      maxNorm: this.#maxNorm,
      scale: Math.sqrt(this.#d_model) / meanNorm,
      normOfMean: Math.hypot(...mean),
      variance: this.#sums.variance(),
      mean,
      byPosition,
      nTokenIds: this.#ofToken.size,
      tokens,
    };
  }
}

/** Positions in ranges that double: 0, 1, 2–3, 4–7 and so on. */
export function doublingRanges(
  byPosition: readonly NormAtPosition[],
): NormAtPosition[] {
  const ranges: NormAtPosition[] = [];
  for (const { from, n, meanNorm } of byPosition) {
    const start = from < 2 ? from : 2 ** Math.floor(Math.log2(from));
    const last = ranges.at(-1);
    if (last?.from === start) {
      const sum = last.n + n;
      const norms = last.n * last.meanNorm + n * meanNorm;
      ranges.splice(-1, 1, { ...last, n: sum, meanNorm: norms / sum });
    } else {
      const to = start === 0 ? 0 : 2 * start - 1;
      ranges.push({ from: start, to, n, meanNorm });
    }
  }
  return ranges;
}
