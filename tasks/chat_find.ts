/**
 * `/find` of the chat: features that a word stands for, looked up in the storybook.
 * @module
 */
import { type ModelFolder, startTokenId } from "../core/model_folder.ts";
import type { Olmo2 } from "../core/olmo2.ts";
import { Sae } from "../core/sae.ts";
import { readDocuments } from "../core/text.ts";
import { gatherExamples } from "../steer/examples.ts";
import { searchFeatures } from "../steer/search.ts";
import { openPath } from "./cli.ts";
import { formatTable } from "./format.ts";
import type { SteeringSae } from "./steering.ts";

/** Where sentences with the word, and others, are looked up. */
const TEXT = "storybook:101:300";
/** Features that are shown. */
const LIMIT = 5;

/** Ranks features for one model and SAE; owns the SAE. */
export class FeatureFinder implements Disposable {
  readonly #folder: ModelFolder;
  readonly #model: Olmo2;
  readonly #steering: SteeringSae;
  readonly #sae: Sae;
  readonly #featureMax: Float32Array | undefined;

  private constructor(
    folder: ModelFolder,
    model: Olmo2,
    steering: SteeringSae,
    sae: Sae,
    featureMax: Float32Array | undefined,
  ) {
    this.#folder = folder;
    this.#model = model;
    this.#steering = steering;
    this.#sae = sae;
    this.#featureMax = featureMax;
  }

  /** Puts the whole SAE on the GPU. */
  static async open(
    folder: ModelFolder,
    model: Olmo2,
    steering: SteeringSae,
  ): Promise<FeatureFinder> {
    const featureMax = await steering.sae.featureMax();
    const sae = await Sae.load(model.gpu, steering.sae);
    return new FeatureFinder(folder, model, steering, sae, featureMax);
  }

  /**
   * The features that tell sentences with the words from others, best first, as a table.
   * @throws {RangeError} If there are no words.
   */
  async find(words: string): Promise<string> {
    const examples = await gatherExamples(
      { words: [words] },
      readDocuments(TEXT, openPath),
    );
    const matches = await searchFeatures(
      {
        model: this.#model,
        tokenizer: this.#folder.tokenizer,
        startTokenId: startTokenId(this.#folder),
        sae: this.#sae,
        hookPoint: this.#steering.hookPoint,
        featureMax: this.#featureMax,
      },
      examples,
      { limit: LIMIT },
    );
    if (matches.length === 0) return `no feature fires on "${words}"`;
    return formatTable(
      ["feature", "label", "score", "recall", "false alarms"],
      matches.map(({ feature, score, recall, falseRate }) => [
        `${feature}`,
        this.#steering.labels.get(feature)?.label ?? "",
        score.toFixed(2),
        recall.toFixed(2),
        falseRate.toFixed(3),
      ]),
    );
  }

  /** Frees the SAE. */
  [Symbol.dispose](): void {
    this.#sae[Symbol.dispose]();
  }
}
