/**
 * SAE files. Ours have the layout of SAELens 6 (`cfg.json` and `sae_weights.safetensors`) with our metadata inside;
 * those of open-concept-steering, sparsify, dictionary_learning and Gemma Scope are read too.
 *
 * Saved weights are folded: they take raw activations and give raw ones, and
 * every decoder row has norm 1, so that activations and strengths of features compare;
 * but for topk, where the norms stay in the decoder, as they would change what the k largest are.
 * An SAE of batchtopk is saved as a jumprelu with one threshold for all features.
 *
 * Whatever a file has, it is read as pre = x·W_encᵀ + b_enc with relu, topk or jumprelu: biases that are taken from
 * the input, scales of it and gates are folded. Features have the values that the tool which wrote them gives.
 * @module
 */
import type { SaeArchitecture, SaeLayout, SaeMetadata } from "./sae_config.ts";
import type { LazyVector } from "./sae_form.ts";
import {
  type OpenedSae,
  openSaeForm,
  type SaeOpenOptions,
} from "./sae_open.ts";
import { floatVector } from "./sae_rows.ts";
import { DENSITY_FILE, FEATURE_MAX_FILE, type SaeWeights } from "./sae_save.ts";
import { Safetensors } from "./safetensors.ts";
import type { Folder, Source } from "./source.ts";

export type { SaeArchitecture, SaeLayout, SaeMetadata } from "./sae_config.ts";
export {
  type FeatureMeasurements,
  foldSae,
  type SaeToSave,
  type SaeWeights,
  saveFeatureMeasurements,
  saveSae,
  type WriteFile,
} from "./sae_save.ts";

/** An open SAE folder. Weights are read by runs of features. */
export class SaeFile {
  /** What errors call it: the folder. */
  readonly name: string;
  /** The layout it has. */
  readonly layout: SaeLayout;
  /** Size of the residual stream. */
  readonly d_model: number;
  /** Number of features. */
  readonly d_sae: number;
  /** What is known of it. */
  readonly metadata: SaeMetadata;
  /** The file of its weights, as it is. */
  readonly weightsFile: Source;
  /** Where it reads and writes, as its files call it, if that is no place on the residual stream. */
  readonly elsewhere: string | undefined;
  /**
   * Its folder, where labels and measurements lie; undefined if they are of another file of weights there, as beside
   * several checkpoints.
   */
  readonly beside: Folder | undefined;
  readonly #form: OpenedSae;

  private constructor(folder: Folder, form: OpenedSae) {
    this.name = folder.name;
    this.layout = form.layout;
    this.d_model = form.d_model;
    this.d_sae = form.d_sae;
    this.metadata = form.metadata;
    this.weightsFile = form.weightsFile;
    this.elsewhere = form.elsewhere;
    this.beside = form.beside;
    this.#form = form;
  }

  /**
   * Reads the config and the description of the weights.
   * @param options.layer Block that the SAE was trained behind, for files that do not tell it, in place of what
   * their layout has: those of open-concept-steering are of `final_norm@15` without it.
   * @param options.file File of the weights in the folder, such as `sae_final.pt`; found without it.
   * @throws {Error} If a file is missing.
   * @throws {SyntaxError} If a file is damaged, or of an SAE that cannot be run.
   * @throws {TypeError} If a matrix has another shape or dtype than the config tells, or a pickle names anything but weights.
   * @throws {RangeError} If the weights are damaged, or the SAE is of another layer.
   */
  static async open(
    folder: Folder,
    options: SaeOpenOptions = {},
  ): Promise<SaeFile> {
    return new SaeFile(folder, await openSaeForm(folder, options));
  }

  /** f32 `[end - start, d_model]`: what features [start, end) read. */
  rowsOfEncoder(
    start: number,
    end: number,
  ): Promise<Float32Array<ArrayBuffer>> {
    return this.#form.W_enc.rows(start, end);
  }

  /** f32 `[end - start, d_model]`: what features [start, end) write. */
  rowsOfDecoder(
    start: number,
    end: number,
  ): Promise<Float32Array<ArrayBuffer>> {
    return this.#form.W_dec.rows(start, end);
  }

  /** Encoder biases, f32 `[d_sae]`. */
  b_enc(): Promise<Float32Array<ArrayBuffer>> {
    return this.#vector("b_enc", this.#form.b_enc);
  }

  /** Decoder bias, f32 `[d_model]`. */
  b_dec(): Promise<Float32Array<ArrayBuffer>> {
    return this.#vector("b_dec", this.#form.b_dec);
  }

  /** Function from pre-activations to activations. */
  get architecture(): SaeArchitecture {
    return this.metadata.architecture;
  }

  /** Features that fire on a vector; of topk only. */
  get k(): number | undefined {
    return this.metadata.k;
  }

  /**
   * What the activation of each feature must exceed, f32 `[d_sae]`; undefined but for jumprelu. Never below 0: SAELens
   * takes the relu as well.
   */
  async threshold(): Promise<Float32Array<ArrayBuffer> | undefined> {
    const { threshold } = this.#form;
    if (!threshold) return undefined;
    const values = await this.#vector("threshold", threshold);
    return values.map((value) => Math.max(value, 0));
  }

  /** All weights, for SAEs that fit into memory. */
  async weights(): Promise<SaeWeights> {
    const { d_model, d_sae } = this;
    const threshold = await this.threshold();
    return {
      d_model,
      d_sae,
      W_enc: await this.rowsOfEncoder(0, d_sae),
      b_enc: await this.b_enc(),
      W_dec: await this.rowsOfDecoder(0, d_sae),
      b_dec: await this.b_dec(),
      ...(threshold && { threshold }),
    };
  }

  /** Largest activation of each feature on the data it was measured on, f32 `[d_sae]`; undefined if it was not. */
  featureMax(): Promise<Float32Array<ArrayBuffer> | undefined> {
    return this.#perFeature(FEATURE_MAX_FILE, "feature_max");
  }

  /** log10 of the share of tokens on which each feature fires, f32 `[d_sae]`; undefined if it was not measured. */
  logDensity(): Promise<Float32Array<ArrayBuffer> | undefined> {
    return this.#perFeature(DENSITY_FILE, "sparsity");
  }

  /** A vector in f32. What is folded can leave the range of numbers, though what is stored does not. */
  async #vector(
    name: string,
    read: LazyVector,
  ): Promise<Float32Array<ArrayBuffer>> {
    const values = Float32Array.from(await read());
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad < 0) return values;
    throw new RangeError(
      `Cannot read "${this.name}": expected finite values of ${name}: got ${
        values[bad]
      } at [${bad}] once all is folded: the file is damaged: fetch it again`,
    );
  }

  async #perFeature(
    file: string,
    tensor: string,
  ): Promise<Float32Array<ArrayBuffer> | undefined> {
    if (!await this.beside?.has(file)) return undefined;
    const opened = await Safetensors.open(await this.beside!.open(file));
    return await floatVector(opened, tensor, this.d_sae);
  }
}
