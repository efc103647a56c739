/**
 * Training settings of open-concept-steering as flags of `train`: what its numbers mean here.
 *
 * Its loss, as its code computes it on batches of the shape `[1, B, d]`, is
 * MSE + λ·(Σ_t Σ_i acts·‖W_dec_i‖)/F: the sum runs over tokens and the mean over features, so
 * that its λ is ours times B/F. Where its MSE is a mean over d_model as well, λ weighs d_model
 * times more. Inputs that are not scaled to mean norm √d_model as ours are make λ smaller by
 * that scale s, since with x' = s·x the squared error grows by s² and the L1 term by s.
 * @module
 */
import { nearest } from "../core/suggest.ts";
import type { PythonDict, PythonValue } from "./python_config.ts";

/** What its code did with λ up to a day. */
export interface OcsCode {
  /** The first day of this code, YYYY-MM-DD. */
  readonly from: string;
  /** Whether its batches had a shape that makes the L1 term a mean over features. */
  readonly isPerFeature: boolean;
  /** Whether its MSE was a mean over d_model. */
  readonly isMeanError: boolean;
  /** Whether it measured a scale for its inputs and used it; later a config's norm_factor, which none has. */
  readonly isScaled: boolean;
}

/** The day its squared error became a sum over d_model. */
const DAY_OF_SUMMED_ERROR = "2025-04-27";

/** Below it, in our units, SAEs stay far from sparse: published ones end between 0.5 and 5. */
const SMALL_LAMBDA = 0.1;

/** Read from the history of its train.py and model.py; newest first. */
const CODES: readonly OcsCode[] = [
  {
    from: "2025-05-10",
    isPerFeature: true,
    isMeanError: false,
    isScaled: false,
  },
  {
    from: "2025-04-27",
    isPerFeature: true,
    isMeanError: false,
    isScaled: true,
  },
  { from: "2025-03-20", isPerFeature: true, isMeanError: true, isScaled: true },
  {
    from: "2025-03-18",
    isPerFeature: false,
    isMeanError: true,
    isScaled: true,
  },
];

/** Its code of a day; the newest without one. */
export function ocsCode(day = "9999-12-31"): OcsCode {
  const code = CODES.find(({ from }) => from <= day);
  if (code && /^\d{4}-\d\d-\d\d$/.test(day)) return code;
  throw new RangeError(
    `Cannot tell the code of ${JSON.stringify(day)}: expected a day from ${
      CODES.at(-1)!.from
    }, the first of its train.py, written YYYY-MM-DD`,
  );
}

/** What its config does not tell. */
export interface OcsFacts {
  readonly code: OcsCode;
  /** √d_model / mean norm of its vectors. */
  readonly inputScale: number;
  /** Vectors of its data. */
  readonly nVectors: number;
}

/** Flags of `train`, and what was done to get them. */
export interface ImportedConfig {
  readonly flags: Readonly<Record<string, number | string>>;
  /** One line each: what was converted, by which formula. */
  readonly converted: readonly string[];
  /** One line each: what was left out, and why. */
  readonly ignored: readonly string[];
}

/** Keys that stand for nothing here. */
const IGNORED: Readonly<Record<string, string>> = {
  data_dir: "give the folder of the vectors with --residuals",
  out_dir: "give the folder to write with --out",
  input_size: "d_model is read from the residuals",
  init_scale:
    "its code sets the decoder to norm 1 and keeps the scale for the encoder only; here both start at the recipe's norm",
  wandb_project: "not a matter of the recipe",
  wandb_name: "not a matter of the recipe",
  wandb_entity: "not a matter of the recipe",
};

/** Keys that are converted; those with null have to be there. */
const DEFAULTS: Readonly<Record<string, PythonValue>> = {
  hidden_size: null,
  batch_size: null,
  learning_rate: null,
  lambda_final: null,
  num_epochs: null,
  lambda_warmup_pct: 0.05,
  norm_factor: 1,
  use_resampling: false,
  resample_steps: [15_000, 30_000, 45_000, 60_000],
  tracking_window: 7500,
};

/**
 * Translates a config of open-concept-steering.
 * @param fileName What errors call it.
 * @throws {RangeError} If a key is missing, unknown, or of a value that cannot be.
 */
export function importOcsConfig(
  config: PythonDict,
  { code, inputScale, nVectors }: OcsFacts,
  fileName: string,
): ImportedConfig {
  checkKeys(config, fileName);
  const number = (key: string, min: number): number => {
    const value = config.get(key) ?? DEFAULTS[key];
    if (typeof value === "number" && value >= min) return value;
    throw new RangeError(
      `Cannot read "${fileName}": expected ${key} to be a number of at least ${min}: got ${
        describe(value)
      }`,
    );
  };
  const d_sae = number("hidden_size", 1);
  const batch = number("batch_size", 1);
  const epochs = number("num_epochs", 1);
  const steps = epochs * Math.floor(nVectors / batch);
  const lambda = convertLambda({
    lambda: number("lambda_final", 0),
    batch,
    d_sae,
    d_model: code.isMeanError ? number("input_size", 1) : 1,
    normFactor: number("norm_factor", Number.MIN_VALUE),
    inputScale,
    code,
  });
  const resampling = convertResampling(config, steps, batch, fileName);
  return {
    flags: {
      architecture: "relu",
      d_sae,
      lambda: lambda.value,
      lambda_warmup: number("lambda_warmup_pct", 0),
      lr: number("learning_rate", Number.MIN_VALUE),
      lr_decay: 0.2,
      steps,
      batch,
      clip_norm: 1,
      beta1: 0.9,
      beta2: 0.999,
      moments: "q8",
      ...resampling.flags,
    },
    converted: [
      "d_sae = hidden_size, batch = batch_size, lr = learning_rate, lambda_warmup = lambda_warmup_pct: as they are",
      ...lambda.lines,
      `steps = num_epochs · floor(vectors / batch_size) = ${epochs} · floor(${nVectors} / ${batch}) = ${steps}`,
      "lr_decay 0.2, clip_norm 1, beta1 0.9, beta2 0.999: written in its code",
      "moments q8: its optimizer is an 8-bit Adam; --moments f32 is exact and takes four times their memory",
      ...resampling.lines,
    ],
    ignored: [
      ...Array.from(config.keys())
        .filter((key) => key in IGNORED)
        .map((key) => `${key}: ${IGNORED[key]}`),
      ...resampling.ignored,
    ],
  };
}

function checkKeys(config: PythonDict, fileName: string): void {
  const known = [...Object.keys(DEFAULTS), ...Object.keys(IGNORED)];
  for (const key of config.keys()) {
    if (known.includes(key)) continue;
    const [near] = nearest(key, known, 1);
    throw new RangeError(
      `Cannot read "${fileName}": open-concept-steering has no setting "${key}"${
        near === undefined ? "" : `: did you mean "${near}"?`
      }`,
    );
  }
}

interface LambdaFacts {
  readonly lambda: number;
  readonly batch: number;
  readonly d_sae: number;
  /** 1 where it does not matter. */
  readonly d_model: number;
  readonly normFactor: number;
  readonly inputScale: number;
  readonly code: OcsCode;
}

/** λ in our units, and how it came about. */
function convertLambda(
  { lambda, batch, d_sae, d_model, normFactor, inputScale, code }: LambdaFacts,
): { value: number; lines: string[] } {
  const lines = [`lambda: its code from ${code.from} on is taken`];
  let value = lambda;
  if (code.isPerFeature) {
    value *= batch / d_sae;
    lines.push(
      `lambda: its L1 term sums over tokens and averages over features, so lambda_final counts batch_size/hidden_size = ${batch}/${d_sae} fold: ${lambda} · ${
        short(batch / d_sae)
      } = ${short(value)}`,
    );
  }
  if (code.isMeanError) {
    lines.push(
      `lambda: its squared error is a mean over d_model where ours is a sum: ${
        short(value)
      } · ${d_model} = ${short(value * d_model)}`,
    );
    value *= d_model;
  }
  if (code.isScaled) {
    lines.push(
      "lambda: its inputs were scaled to mean norm √d_model, as ours are: no change",
    );
  } else {
    const scale = inputScale / normFactor;
    const by = normFactor === 1
      ? "its inputs were not scaled (its code reads norm_factor from the config, which has none)"
      : `its inputs were multiplied by norm_factor ${normFactor}`;
    lines.push(
      `lambda: ${by}; ours are scaled to mean norm √d_model, s = ${
        short(scale)
      } times that, and λ' = s·λ: ${short(value)} · ${short(scale)} = ${
        short(value * scale)
      }`,
    );
    value *= scale;
  }
  if (lambda > 0 && value < SMALL_LAMBDA) {
    lines.push(
      `lambda: ${
        short(value)
      } hardly makes an SAE sparse; most configs of so small a λ were for code before ${DAY_OF_SUMMED_ERROR}: see --code-date`,
    );
  }
  return { value: Number(value.toPrecision(6)), lines };
}

/** Its steps of resampling as an interval and an end. */
function convertResampling(
  config: PythonDict,
  steps: number,
  batch: number,
  fileName: string,
): {
  flags: Record<string, number>;
  lines: string[];
  ignored: string[];
} {
  const setting = (key: string): PythonValue =>
    config.get(key) ?? DEFAULTS[key]!;
  const ignored = ["resample_steps", "tracking_window"]
    .filter((key) => config.has(key));
  if (setting("use_resampling") !== true) {
    return {
      flags: { resample_every: 0 },
      lines: ["resample_every 0: use_resampling is not on"],
      ignored: ignored.map((key) => `${key}: use_resampling is not on`),
    };
  }
  const at = setting("resample_steps");
  const every = Array.isArray(at) ? at[0] : undefined;
  const isRegular = Array.isArray(at) && typeof every === "number" &&
    every >= 1 && at.every((step, i) => step === every * (i + 1));
  if (!isRegular) {
    throw new RangeError(
      `Cannot read "${fileName}": expected resample_steps at equal distances, such as [15000, 30000]: got ${
        describe(at)
      }: set resample_every and resample_until by hand`,
    );
  }
  const window = setting("tracking_window");
  const until = Math.min(1, every * at.length / steps);
  return {
    flags: {
      resample_every: every,
      resample_until: Number(until.toPrecision(6)),
      ...(typeof window === "number" && { dead_after: window * batch }),
    },
    lines: [
      `resample_every ${every}, until ${
        short(until)
      } of the steps: from resample_steps; in its code the resampling fails at run time, here it works`,
      `dead_after = tracking_window · batch_size = ${
        describe(window)
      } · ${batch} vectors`,
    ],
    ignored: [],
  };
}

function short(value: number): string {
  return String(Number(value.toPrecision(6)));
}

function describe(value: PythonValue | undefined): string {
  if (value === undefined || value === null) return "nothing";
  return value instanceof Map ? "a dictionary" : JSON.stringify(value);
}
