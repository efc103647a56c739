/**
 * What `steer` and `chat` share: their flags, and the checks before anything runs.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { hookPlace, type HookPoint } from "../core/hook_point.ts";
import type { ModelFolder } from "../core/model_folder.ts";
import { checkSaeFits } from "../core/sae_fit.ts";
import type { Gpu } from "../gpu/mod.ts";
import {
  checkSteering,
  formatIntervention,
  type Intervention,
  parseIntervention,
  placeOf,
  STEER_MODE_NAMES,
  SteeringBank,
  type SteeringSource,
  type WatchedFeature,
} from "../steer/interventions.ts";
import {
  type FeatureLabels,
  featureOfLabel,
  hasLabel,
  readLabels,
} from "../steer/labels.ts";
import {
  ANY_MODEL_FLAG,
  GPU_FLAGS,
  MODEL_FLAG,
  openSae,
  QUANTIZE_FLAG,
  SAE_FLAG,
} from "./cli.ts";
import { MEMORY_FLAG } from "./memory_budget.ts";
import { SAMPLING_FLAGS } from "./sampling_flags.ts";

/** Flags that say how a model is steered, and which. */
export const STEER_FLAGS = {
  steer: {
    type: "strings",
    help:
      "FEATURE=STRENGTH, the feature by number or label: 758=10 (absolute), 758=5x (times its maximum), 758=5x:add (another mode), 758=ablate, 758@3=5x (after block 3), 758=5x:after=20:decay=50 (from the reply's 20th token on, fading over 50)",
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
  ...MODEL_FLAG,
  ...QUANTIZE_FLAG,
  ...MEMORY_FLAG,
  sae: { type: "strings", help: SAE_FLAG.sae.help },
  ...ANY_MODEL_FLAG,
  ...GPU_FLAGS,
} as const satisfies FlagTable;

/** Values of {@link STEER_FLAGS}. */
export type SteerFlags = ConfigOf<typeof STEER_FLAGS>;

/** Flags of tasks that reply. */
export const STEERING_FLAGS = {
  ...STEER_FLAGS,
  ...SAMPLING_FLAGS,
  max_tokens: {
    default: 128,
    integer: true,
    min: 1,
    unit: "tokens",
    help: "longest reply",
  },
  context: {
    type: "number",
    integer: true,
    min: 2,
    unit: "tokens",
    help: "prompt and reply at most; the model's context without it",
  },
  stop: {
    type: "strings",
    help: "text before which a reply ends; several end it at the first",
  },
  truncate: {
    default: false,
    help:
      "cut the beginning off a prompt that is longer than the model's context",
  },
  system: { type: "string", help: "system message of the chat template" },
} as const satisfies FlagTable;

/** Values of {@link STEERING_FLAGS}. */
export type SteeringFlags = ConfigOf<typeof STEERING_FLAGS>;

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

/** An SAE that fits the model, and the block after which it was trained. */
export interface SteeringSae extends SteeringSource {
  /** Where it was trained; it steers the residual stream after that block. */
  readonly hookPoint: HookPoint;
  /** What its features are called. */
  readonly labels: FeatureLabels;
}

/** The SAEs that steer a model, each at a layer of its own. */
export class Steering {
  /** In the order of the flags; at least one. */
  readonly saes: readonly SteeringSae[];
  readonly #flags: SteerFlags;
  readonly #nLayers: number;

  private constructor(
    saes: readonly SteeringSae[],
    flags: SteerFlags,
    nLayers: number,
  ) {
    this.saes = saes;
    this.#flags = flags;
    this.#nLayers = nLayers;
  }

  /**
   * Opens the SAEs that the flags name.
   * @throws {Error} If one is damaged, or does not fit the model.
   */
  static async open(
    flags: SteerFlags,
    model: ModelFolder,
  ): Promise<Steering> {
    const saes: SteeringSae[] = [];
    for (const name of flags.sae.length > 0 ? flags.sae : [undefined]) {
      const sae = await openSae(name, flags.layer);
      const hookPoint = checkSaeFits(sae, model, { anyModel: flags.any_model });
      const labels = await readLabels(sae.beside, sae.d_sae);
      const { layer } = hookPlace(hookPoint);
      saes.push({ sae, layer, hookPoint, labels });
    }
    await checkSteering(saes, []);
    return new Steering(saes, flags, model.config.n_layers);
  }

  /**
   * Reads `758=5x`, `baseball=5x` or `758@3=5x`.
   * @throws {SyntaxError} If the text has another form.
   * @throws {RangeError} If no feature or several have the label, or there is no telling which SAE is meant.
   */
  parse(text: string): Intervention {
    let labelled: SteeringSae | undefined;
    const intervention = parseIntervention(text, {
      mode: this.#flags.mode,
      featureOf: (label, layer) => {
        labelled = this.#saeOfLabel(label, layer);
        return featureOfLabel(labelled.labels, label);
      },
    });
    if (!labelled || this.saes.length === 1) return intervention;
    return { ...intervention, layer: labelled.layer };
  }

  /** Of several SAEs the one of the layer, or the only one that knows the label. */
  #saeOfLabel(label: string, layer: number | undefined): SteeringSae {
    const [first] = this.saes;
    if (this.saes.length === 1) return first!;
    const known = this.saes.filter((sae) =>
      layer === undefined ? hasLabel(sae.labels, label) : sae.layer === layer
    );
    if (known.length === 1) return known[0]!;
    const choices = (known.length > 0 ? known : this.saes)
      .map(({ layer }) => `${label}@${layer}`).join(" or ");
    const got = known.length > 0
      ? "that label in several SAEs"
      : layer === undefined
      ? "no SAE that has it"
      : `@${layer}`;
    throw new RangeError(
      `Cannot find the feature labelled "${label}": expected ${choices}: got ${got}`,
    );
  }

  /** Throws unless the SAEs and the model can be steered so. */
  async check(interventions: readonly Intervention[]): Promise<void> {
    await checkSteering(this.saes, interventions);
    const layers = interventions.map((one) => this.placeOf(one).layer);
    const deepest = Math.max(0, ...layers);
    if (deepest < this.#nLayers) return;
    throw new RangeError(
      `Cannot steer after block ${deepest}: expected a layer from 0 to ${
        this.#nLayers - 1
      }, as the model has ${this.#nLayers}`,
    );
  }

  /** Throws unless the SAEs have these features, and the model their layers. */
  async checkWatched(watched: readonly WatchedFeature[]): Promise<void> {
    const nothing = { mode: "add", strength: 0, unit: "absolute" } as const;
    await this.check(watched.map((one) => ({ ...one, ...nothing })));
  }

  /** The SAE of an intervention, and the block after which it acts. */
  placeOf(one: Intervention): { source: SteeringSae; layer: number } {
    return placeOf(this.saes, one);
  }

  /** What the feature of an intervention is called. */
  labelOf(intervention: Intervention): string | undefined {
    const { labels } = this.placeOf(intervention).source;
    return labels.get(intervention.feature)?.label;
  }

  /** Reads a feature to watch: `758`, `baseball` or `758@3`. */
  parseWatched(text: string): WatchedFeature {
    const { feature, layer } = this.parse(`${text}=1`);
    return { feature, ...(layer !== undefined && { layer }) };
  }

  /** Puts interventions on the GPU, as set 0, and what is watched where nothing acts, as set 1. */
  async load(
    gpu: Gpu,
    interventions: readonly Intervention[],
    watched: readonly WatchedFeature[] = [],
  ): Promise<SteeringBank> {
    using loaded = new DisposableStack();
    const options = { encoding: this.#flags.encode };
    const bank = loaded.use(await SteeringBank.open(gpu, this.saes, options));
    await bank.add(interventions, watched);
    await bank.add([], watched);
    loaded.move();
    return bank;
  }

  /** `758=5x (baseball)` for each, with commas between. */
  describe(interventions: readonly Intervention[]): string {
    return interventions.map((intervention) => {
      const label = this.labelOf(intervention);
      const text = formatIntervention(intervention);
      return label === undefined ? text : `${text} (${label})`;
    }).join(", ");
  }

  /** Where interventions act, for people: says so where an SAE was trained on something else. */
  describePlaces(interventions: readonly Intervention[]): string {
    const places = interventions.map((one) => this.placeOf(one))
      .sort((a, b) => a.layer - b.layer)
      .map(({ source: { hookPoint }, layer }) => {
        const trained = hookPlace(hookPoint);
        const here = `resid_post[${layer}]`;
        return here === hookPoint
          ? here
          : trained.layer === layer
          ? `${here}, though trained on ${hookPoint}, as open-concept-steering did`
          : `${here}, though trained on ${hookPoint}`;
      });
    return [...new Set(places)].join(" and ");
  }
}

/** Writes a piece of a result to standard output. */
export function write(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let written = 0; written < bytes.length;) {
    written += Deno.stdout.writeSync(bytes.subarray(written));
  }
}
