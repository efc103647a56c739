/**
 * What `steer` and `chat` share: their flags, the checks before anything runs,
 * and a model that replies.
 * @module
 */
import { directory } from "../core/files.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { hookPlace, type HookPoint } from "../core/hook_point.ts";
import { modelFingerprint, type ModelFolder } from "../core/model_folder.ts";
import { Olmo2 } from "../core/olmo2.ts";
import { readModelConfig } from "../core/olmo2_config.ts";
import type { SaeFile } from "../core/sae_file.ts";
import { checkSaeFits } from "../core/sae_fit.ts";
import { openCheckpoint } from "../core/safetensors.ts";
import { missingFile } from "../core/source.ts";
import type { Tokenizer } from "../core/tokenizer.ts";
import type { Gpu } from "../gpu/mod.ts";
import type { Sampling } from "../steer/generate.ts";
import {
  checkSteering,
  formatIntervention,
  type Intervention,
  parseIntervention,
  STEER_MODE_NAMES,
  SteeringBank,
} from "../steer/interventions.ts";
import {
  type FeatureLabels,
  featureOfLabel,
  readLabels,
} from "../steer/labels.ts";
import {
  ANY_MODEL_FLAG,
  GPU_FLAGS,
  MODEL_FLAG,
  openModel,
  openSae,
  SAE_FLAG,
  type TaskContext,
  userPath,
} from "./cli.ts";
import { modelBytes, passBytes } from "./memory.ts";

/** Flags of tasks that reply. */
export const STEERING_FLAGS = {
  steer: {
    type: "strings",
    help:
      "FEATURE=STRENGTH, the feature by number or label: 758=10 (absolute), 758=5x (times its maximum), 758=5x:add (another mode), 758=ablate",
  },
  mode: {
    default: "clamp",
    choices: STEER_MODE_NAMES,
    help: "what --steer does to a feature's activation",
  },
  positions: {
    default: "all",
    choices: ["all", "generated"] as const,
    help: "steer the prompt too, or only what is generated",
  },
  encode: {
    default: "relu",
    choices: ["relu", "linear"] as const,
    help: "activation that is changed; linear as open-concept-steering had it",
  },
  layer: {
    type: "number",
    integer: true,
    min: 0,
    help: "block that the SAE was trained behind, for files that do not tell",
  },
  greedy: {
    default: false,
    help: "always the likeliest token, as temperature 0",
  },
  temperature: { default: 0.7, min: 0, help: "of sampling" },
  top_p: {
    default: 0.9,
    min: 0,
    max: 1,
    help: "keep the likeliest tokens that together reach this probability",
  },
  top_k: {
    default: 0,
    integer: true,
    min: 0,
    max: 2 ** 32 - 1,
    help: "keep this many likeliest tokens; 0 keeps all",
  },
  seed: {
    default: 0,
    integer: true,
    min: 0,
    max: 2 ** 32 - 1,
    help: "seed of sampling",
  },
  max_tokens: {
    default: 128,
    integer: true,
    min: 1,
    unit: "tokens",
    help: "longest reply",
  },
  system: { type: "string", help: "system message of the chat template" },
  ...MODEL_FLAG,
  ...SAE_FLAG,
  ...ANY_MODEL_FLAG,
  ...GPU_FLAGS,
} as const satisfies FlagTable;

/** Values of {@link STEERING_FLAGS}. */
export type SteeringFlags = ConfigOf<typeof STEERING_FLAGS>;

/** A model's files; reading the tokenizer throws where there is none. */
export interface ModelForIds extends ModelFolder {
  /** Whether there is a tokenizer. */
  readonly hasTokenizer: boolean;
}

/**
 * Opens the model that `--model` names, or the embedded one. A folder without a tokenizer
 * will do where only token ids are asked for.
 * @throws {Error} As `openModelFolder`.
 */
export async function openModelForIds(
  typed: string | undefined,
): Promise<ModelForIds> {
  const folder = typed === undefined ? undefined : directory(userPath(typed));
  if (!folder || await folder.has("tokenizer.json")) {
    return { ...await openModel(typed), hasTokenizer: true };
  }
  const config = await readModelConfig(folder);
  const checkpoint = await openCheckpoint(folder);
  return {
    name: folder.name,
    config,
    checkpoint,
    fingerprint: await modelFingerprint(config, checkpoint),
    hasTokenizer: false,
    get tokenizer(): Tokenizer {
      throw missingFile(folder.name, "tokenizer.json");
    },
  };
}

/**
 * Checks the length that `--max-tokens` asks for.
 * @throws {RangeError} If the model has no room for such a reply.
 */
export function checkReplyLength(
  { max_tokens }: SteeringFlags,
  { name, config: { context_length } }: ModelFolder,
): void {
  if (max_tokens < context_length) return;
  throw new RangeError(
    `Cannot reply with --max-tokens ${max_tokens}: the context of model "${name}" is ${context_length} tokens: shorten it`,
  );
}

/** How tokens are chosen. */
export function samplingOf(flags: SteeringFlags): Sampling {
  const { temperature, top_p, top_k, seed } = flags;
  return {
    temperature: flags.greedy ? 0 : temperature,
    topP: top_p,
    topK: top_k,
    seed,
  };
}

/** An SAE that fits the model, and the names of its features. */
export class Steering {
  /** The SAE. */
  readonly sae: SaeFile;
  /** Where it was trained; it steers the residual stream after that block. */
  readonly hookPoint: HookPoint;
  /** What its features are called. */
  readonly labels: FeatureLabels;
  readonly #flags: SteeringFlags;

  private constructor(
    sae: SaeFile,
    hookPoint: HookPoint,
    labels: FeatureLabels,
    flags: SteeringFlags,
  ) {
    this.sae = sae;
    this.hookPoint = hookPoint;
    this.labels = labels;
    this.#flags = flags;
  }

  /**
   * Opens the SAE that the flags name.
   * @throws {Error} If it is damaged, or does not fit the model.
   */
  static async open(
    flags: SteeringFlags,
    model: ModelFolder,
  ): Promise<Steering> {
    const sae = await openSae(flags.sae, flags.layer);
    const hookPoint = checkSaeFits(sae, model, { anyModel: flags.any_model });
    const labels = await readLabels(directory(sae.name), sae.d_sae);
    return new Steering(sae, hookPoint, labels, flags);
  }

  /** The block after which it steers. */
  get layer(): number {
    return hookPlace(this.hookPoint).layer;
  }

  /**
   * Reads `758=5x` or `baseball=5x`.
   * @throws {SyntaxError} If the text has another form.
   * @throws {RangeError} If no feature or several have the label.
   */
  parse(text: string): Intervention {
    return parseIntervention(text, {
      mode: this.#flags.mode,
      featureOf: (label) => featureOfLabel(this.labels, label),
    });
  }

  /** Throws unless the SAE can be steered so. */
  async check(interventions: readonly Intervention[]): Promise<void> {
    await checkSteering([this], interventions);
  }

  /** Puts interventions on the GPU, as set 0. */
  load(
    gpu: Gpu,
    interventions: readonly Intervention[],
  ): Promise<SteeringBank> {
    const options = { layer: this.layer, encoding: this.#flags.encode };
    return SteeringBank.load(gpu, this.sae, [interventions], options);
  }

  /** `758=5x (baseball)` for each, with commas between. */
  describe(interventions: readonly Intervention[]): string {
    return interventions.map((intervention) => {
      const label = this.labels.get(intervention.feature)?.label;
      const text = formatIntervention(intervention);
      return label === undefined ? text : `${text} (${label})`;
    }).join(", ");
  }

  /** Where it acts, for people: says so where the SAE was trained on something else. */
  describePlace(): string {
    const { site, layer } = hookPlace(this.hookPoint);
    return site === "resid_post"
      ? this.hookPoint
      : `resid_post[${layer}], though trained on ${this.hookPoint}, as open-concept-steering did`;
  }
}

/**
 * Says what memory will be held, and puts a model on a GPU.
 * @param nTokens Tokens of all replies and their prompts at once.
 */
export async function loadModel(
  flags: SteeringFlags,
  folder: ModelFolder,
  nTokens: number,
  context: TaskContext,
): Promise<Olmo2> {
  const { config, checkpoint } = folder;
  const gpu = await context.openGpu(flags.gpu);
  context.plan([
    { what: "model", bytes: modelBytes(folder) },
    {
      what: `${nTokens} tokens`,
      bytes: passBytes(config, nTokens, config.n_layers),
    },
  ]);
  using progress = context.progress({ label: "load", unit: "MB" });
  return await Olmo2.load(gpu, checkpoint, config, {
    onProgress: (bytes) => progress.update(bytes / 1e6),
  });
}

/** Writes a piece of a result to standard output. */
export function write(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let written = 0; written < bytes.length;) {
    written += Deno.stdout.writeSync(bytes.subarray(written));
  }
}
