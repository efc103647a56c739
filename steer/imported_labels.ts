/**
 * Labels that other tools gave to features, checked and made fit to be shown.
 * @module
 */
import type { FeatureLabel, FeatureLabels } from "./labels.ts";

const MAX_LABEL_CHARACTERS = 1000;
const MAX_SOURCE_CHARACTERS = 10_000;
/** What labelling models say of a feature that means nothing to them. */
const NO_LABEL = "uncertain";

/** Labels as they are read. */
export class ImportedLabels {
  readonly #d_sae: number;
  readonly #labels = new Map<number, FeatureLabel>();
  #nLeftOut = 0;

  /** For an SAE of `d_sae` features. */
  constructor(d_sae: number) {
    this.#d_sae = d_sae;
  }

  /** The labels so far. */
  get labels(): FeatureLabels {
    return this.#labels;
  }

  /** Rows that gave none: of a feature that has one, empty, or "uncertain". */
  get nLeftOut(): number {
    return this.#nLeftOut;
  }

  /**
   * Adds a label, on one line and without control characters; a feature's first one counts.
   * @param feature Its index, as it is written.
   * @param place File and row, for errors.
   * @throws {RangeError} If the SAE has no such feature, or the label is no label for its length.
   */
  add(feature: string, label: Required<FeatureLabel>, place: string): void {
    const index = /^\d{1,9}$/.test(feature) ? Number(feature) : NaN;
    if (!(index < this.#d_sae)) {
      throw new RangeError(
        `Cannot read ${place}: expected a feature from 0 to ${
          this.#d_sae - 1
        }: got ${JSON.stringify(feature.slice(0, 40))}: is it of another SAE?`,
      );
    }
    const text = shown(label.label);
    const source = shown(label.source).slice(0, MAX_SOURCE_CHARACTERS);
    if (text.length > MAX_LABEL_CHARACTERS) {
      throw new RangeError(
        `Cannot read ${place}: expected a label of at most ${MAX_LABEL_CHARACTERS} characters: got ${text.length}`,
      );
    }
    if (
      text === "" || text.toLowerCase() === NO_LABEL || this.#labels.has(index)
    ) {
      this.#nLeftOut++;
      return;
    }
    this.#labels.set(index, { label: text, ...(source && { source }) });
  }
}

/** Text without what moves a terminal's cursor or breaks a line. */
function shown(text: string): string {
  return text.replace(/[\s\p{Cc}]+/gu, " ").trim();
}
