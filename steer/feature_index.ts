/**
 * What each feature fires on: its strongest contexts, its maximum, how often
 * it fires and how strongly, over a text. Memory does not grow with the text.
 * @module
 */
import type { TokenizedDocument } from "../core/tokenized_text.ts";
import type { SparseActivations } from "./activations.ts";
import {
  contextRange,
  type FeatureContext,
  TopContexts,
} from "./top_contexts.ts";

/** Contexts of a feature from one document, so that one text does not fill the list. */
const MOST_PER_DOCUMENT = 2;
/** Contexts of a feature, unless told otherwise. */
const CONTEXTS = 10;

/** What an index knows of one feature. */
export interface FeatureEntry {
  /** Its index. */
  readonly feature: number;
  /** Largest activation; 0 if it never fires. */
  readonly max: number;
  /** Share of tokens on which it fires. */
  readonly density: number;
  /** Mean activation where it fires; 0 if it never does. */
  readonly mean: number;
  /** Strongest contexts, strongest first. */
  readonly contexts: readonly FeatureContext[];
}

/** What an index was made from. */
export interface FeatureIndexSource {
  /** Fingerprint of the model. */
  readonly modelFingerprint: string;
  /** Fingerprint of the SAE, as `saeFingerprint` gives it. */
  readonly saeFingerprint: string;
  /** The text, as `readDocuments` takes it. */
  readonly text: string;
}

/** What all features of an index share. */
export interface FeatureIndexHeader extends FeatureIndexSource {
  /** Number of features. */
  readonly d_sae: number;
  /** Most contexts of a feature. */
  readonly nContexts: number;
  /** Documents read. */
  readonly nDocuments: number;
  /** Tokens read; those that are left out do not count. */
  readonly nTokens: number;
}

/**
 * Gathers an index, a document at a time. Takes 2.2 kB a feature with 10 contexts:
 * 145 MB for 65,536 features, however long the text is.
 */
export class FeatureIndexBuilder {
  readonly #source: FeatureIndexSource;
  readonly #nContexts: number;
  readonly #top: TopContexts;
  readonly #max: Float32Array<ArrayBuffer>;
  readonly #nFired: Float64Array<ArrayBuffer>;
  readonly #sum: Float64Array<ArrayBuffer>;
  /** Largest activations in the current document, and where; `[MOST_PER_DOCUMENT, d_sae]`. */
  readonly #best: Float32Array<ArrayBuffer>;
  readonly #bestRow: Uint32Array<ArrayBuffer>;
  #nDocuments = 0;
  #nTokens = 0;

  /** Starts an empty index of `d_sae` features, with up to `nContexts` contexts each. */
  constructor(
    source: FeatureIndexSource,
    d_sae: number,
    nContexts: number = CONTEXTS,
  ) {
    this.#source = source;
    this.#nContexts = nContexts;
    this.#top = new TopContexts(d_sae, nContexts);
    this.#max = new Float32Array(d_sae);
    this.#nFired = new Float64Array(d_sae);
    this.#sum = new Float64Array(d_sae);
    this.#best = new Float32Array(MOST_PER_DOCUMENT * d_sae);
    this.#bestRow = new Uint32Array(MOST_PER_DOCUMENT * d_sae);
  }

  /** Number of features. */
  get d_sae(): number {
    return this.#max.length;
  }

  /** Tokens added so far. */
  get nTokens(): number {
    return this.#nTokens;
  }

  /** Adds a document; the last rows of `acts` belong to its last tokens, and tokens without a row are left out. */
  add(
    document: Pick<TokenizedDocument, "id" | "ids">,
    acts: SparseActivations,
  ): void {
    const nRows = acts.offsets.length - 1;
    const skipped = document.ids.length - nRows;
    const number = this.#nDocuments++;
    this.#nTokens += nRows;
    const fired = this.#count(acts);
    for (const feature of fired) {
      for (let rank = 0; rank < MOST_PER_DOCUMENT; rank++) {
        const at = rank * this.d_sae + feature;
        const activation = this.#best[at]!;
        this.#best[at] = 0;
        if (!(activation > this.#top.least(feature))) continue;
        const position = this.#bestRow[at]! + skipped;
        const [start, end] = contextRange(position);
        const ids = Array.from(document.ids.slice(start, end));
        this.#top.add(feature, number, {
          document: document.id,
          position,
          activation,
          start,
          ids,
          acts: ids.map((_, i) =>
            activationOf(acts, start + i - skipped, feature)
          ),
        });
      }
    }
  }

  /** The index of all documents added so far. */
  finish(): FeatureIndex {
    const { d_sae } = this;
    const nTokens = Math.max(1, this.#nTokens);
    return new FeatureIndex(
      {
        ...this.#source,
        d_sae,
        nContexts: this.#nContexts,
        nDocuments: this.#nDocuments,
        nTokens: this.#nTokens,
      },
      {
        max: this.#max,
        density: Float32Array.from(this.#nFired, (n) => n / nTokens),
        mean: Float32Array.from(
          this.#sum,
          (sum, i) => sum / Math.max(1, this.#nFired[i]!),
        ),
      },
      this.#top,
    );
  }

  /** Updates the statistics, and finds each feature's strongest rows of this document; returns the features that fire. */
  #count({ offsets, features, values }: SparseActivations): number[] {
    const { d_sae } = this;
    const [best, bestRow] = [this.#best, this.#bestRow];
    const fired: number[] = [];
    for (let row = 0; row + 1 < offsets.length; row++) {
      for (let k = offsets[row]!; k < offsets[row + 1]!; k++) {
        const [feature, value] = [features[k]!, values[k]!];
        this.#nFired[feature]!++;
        this.#sum[feature]! += value;
        if (value > this.#max[feature]!) this.#max[feature] = value;
        if (best[feature] === 0) fired.push(feature);
        let rank = MOST_PER_DOCUMENT;
        while (rank > 0 && value > best[(rank - 1) * d_sae + feature]!) rank--;
        for (let r = MOST_PER_DOCUMENT - 1; r > rank; r--) {
          best[r * d_sae + feature] = best[(r - 1) * d_sae + feature]!;
          bestRow[r * d_sae + feature] = bestRow[(r - 1) * d_sae + feature]!;
        }
        if (rank === MOST_PER_DOCUMENT) continue;
        best[rank * d_sae + feature] = value;
        bestRow[rank * d_sae + feature] = row;
      }
    }
    return fired;
  }
}

/** Activation of one feature on one row; 0 where there is no such row. */
function activationOf(
  { offsets, features, values }: SparseActivations,
  row: number,
  feature: number,
): number {
  if (row < 0) return 0;
  for (let k = offsets[row]!; k < offsets[row + 1]!; k++) {
    if (features[k] === feature) return values[k]!;
  }
  return 0;
}

/** Per-feature numbers of an index, f32 `[d_sae]` each. */
export interface FeatureNumbers {
  /** Largest activation. */
  readonly max: Float32Array;
  /** Share of tokens on which it fires. */
  readonly density: Float32Array;
  /** Mean activation where it fires. */
  readonly mean: Float32Array;
}

/** What each feature of an SAE fires on in a text. */
export class FeatureIndex {
  /** What it was made from. */
  readonly header: FeatureIndexHeader;
  /** The numbers of all features. */
  readonly numbers: FeatureNumbers;
  readonly #top: TopContexts;

  /** For {@link FeatureIndexBuilder} and the reader of index files. */
  constructor(
    header: FeatureIndexHeader,
    numbers: FeatureNumbers,
    top: TopContexts,
  ) {
    this.header = header;
    this.numbers = numbers;
    this.#top = top;
  }

  /**
   * What is known of a feature.
   * @throws {RangeError} If there is no such feature.
   */
  entry(feature: number): FeatureEntry {
    const { max, density, mean } = this.numbers;
    if (max[feature] === undefined) {
      throw new RangeError(
        `Cannot show feature ${feature}: expected a feature from 0 to ${
          max.length - 1
        }`,
      );
    }
    return {
      feature,
      max: max[feature],
      density: density[feature]!,
      mean: mean[feature]!,
      contexts: this.#top.contexts(feature),
    };
  }
}
