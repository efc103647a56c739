/**
 * SAE files. Ours have the layout of SAELens 6 (`cfg.json` and
 * `sae_weights.safetensors`) with our metadata inside; those of open-concept-steering are read too.
 *
 * Saved weights are folded: they take raw activations and give raw ones, and
 * every decoder row has norm 1, so that activations and strengths of features compare;
 * but for topk, where the norms stay in the decoder, as they would change what the k largest are.
 * An SAE of batchtopk is saved as a jumprelu with one threshold for all features.
 * @module
 */
import {
  CONFIG_FILES,
  parseSaeConfig,
  type SaeArchitecture,
  type SaeConfig,
  type SaeLayout,
  type SaeMetadata,
} from "./sae_config.ts";
import {
  DENSITY_FILE,
  FEATURE_MAX_FILE,
  type SaeWeights,
  WEIGHTS_FILE,
} from "./sae_save.ts";
import { type FeatureRows, featureRows, floatVector } from "./sae_rows.ts";
import { Safetensors } from "./safetensors.ts";
import { type Folder, readJson } from "./source.ts";

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

/** What the layouts call the tensors, and which way round the matrices are. */
const TENSORS = {
  "saelens": {
    W_enc: ["W_enc", "[d_model, d_sae]"],
    b_enc: "b_enc",
    W_dec: ["W_dec", "[d_sae, d_model]"],
    b_dec: "b_dec",
  },
  "open-concept-steering": {
    W_enc: ["encode.weight", "[d_sae, d_model]"],
    b_enc: "encode.bias",
    W_dec: ["decode.weight", "[d_model, d_sae]"],
    b_dec: "decode.bias",
  },
} as const;

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
  readonly #folder: Folder;
  readonly #weights: Safetensors;
  readonly #W_enc: FeatureRows;
  readonly #W_dec: FeatureRows;

  private constructor(folder: Folder, config: SaeConfig, weights: Safetensors) {
    const { layout, d_model, d_sae, metadata } = config;
    const { W_enc, W_dec } = TENSORS[layout];
    this.name = folder.name;
    this.layout = layout;
    this.d_model = d_model;
    this.d_sae = d_sae;
    this.metadata = metadata;
    this.#folder = folder;
    this.#weights = weights;
    this.#W_enc = featureRows(weights, W_enc[0], d_sae, d_model, W_enc[1]);
    this.#W_dec = featureRows(weights, W_dec[0], d_sae, d_model, W_dec[1]);
  }

  /**
   * Reads the config and the header of the weights.
   * @param options.layer Block that the SAE was trained behind. Files of open-concept-steering do
   * not tell it; with it their hook point is `final_norm@layer`, without it they have none.
   * @throws {Error} If a file is missing.
   * @throws {SyntaxError} If the config is damaged, or of an SAE that cannot be run.
   * @throws {TypeError} If a matrix has another shape or dtype than the config tells.
   * @throws {RangeError} If the weights are damaged, or the SAE is of another layer.
   */
  static async open(
    folder: Folder,
    options: { layer?: number } = {},
  ): Promise<SaeFile> {
    const layout = await findLayout(folder);
    const source = await folder.open(CONFIG_FILES[layout]);
    const config = parseSaeConfig(
      layout,
      await readJson(source),
      source.name,
      options.layer,
    );
    const weights = await Safetensors.open(await folder.open(WEIGHTS_FILE));
    return new SaeFile(folder, config, weights);
  }

  /** f32 `[end - start, d_model]`: what features [start, end) read. */
  rowsOfEncoder(
    start: number,
    end: number,
  ): Promise<Float32Array<ArrayBuffer>> {
    return this.#W_enc.rows(start, end);
  }

  /** f32 `[end - start, d_model]`: what features [start, end) write. */
  rowsOfDecoder(
    start: number,
    end: number,
  ): Promise<Float32Array<ArrayBuffer>> {
    return this.#W_dec.rows(start, end);
  }

  /** Encoder biases, f32 `[d_sae]`. */
  b_enc(): Promise<Float32Array<ArrayBuffer>> {
    return floatVector(this.#weights, TENSORS[this.layout].b_enc, this.d_sae);
  }

  /** Decoder bias, f32 `[d_model]`. */
  b_dec(): Promise<Float32Array<ArrayBuffer>> {
    return floatVector(this.#weights, TENSORS[this.layout].b_dec, this.d_model);
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
    if (this.architecture !== "jumprelu") return undefined;
    const values = await floatVector(this.#weights, "threshold", this.d_sae);
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

  async #perFeature(
    file: string,
    tensor: string,
  ): Promise<Float32Array<ArrayBuffer> | undefined> {
    if (!await this.#folder.has(file)) return undefined;
    const opened = await Safetensors.open(await this.#folder.open(file));
    return await floatVector(opened, tensor, this.d_sae);
  }
}

async function findLayout(folder: Folder): Promise<SaeLayout> {
  const layouts = ["saelens", "open-concept-steering"] as const;
  for (const layout of layouts) {
    if (await folder.has(CONFIG_FILES[layout])) return layout;
  }
  throw new Error(
    `Cannot open an SAE in "${folder.name}": expected ${
      layouts.map((layout) => CONFIG_FILES[layout]).join(" or ")
    }: got neither: name the folder of an SAE`,
  );
}
