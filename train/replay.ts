/**
 * Training steps that were computed elsewhere, done again here: does this GPU train right?
 * @module
 */
import { z } from "zod";
import { type Check, checkOf, relativeError } from "../core/check.ts";
import { checkJson } from "../core/check_json.ts";
import { Safetensors } from "../core/safetensors.ts";
import { type Folder, readJson } from "../core/source.ts";
import type { Gpu } from "../gpu/mod.ts";
import type { SaeParams } from "./init.ts";
import type { StepMetrics } from "./metrics.ts";
import { PARAMETERS, SaeTrainer } from "./trainer.ts";

/** Largest relative error of twelve steps in f32 against float64. */
const LIMIT = 1e-5;

const finite = z.number();
const size = z.int().min(1).max(2 ** 24);
const Steps = z.object({
  d_model: size,
  n_features: size,
  batch: size,
  clip_grad_norm: finite.positive(),
  betas: z.tuple([finite, finite]),
  eps: finite,
  steps: z.array(z.object({
    step: z.int(),
    loss: finite,
    mse: finite,
    l1: finite,
    l0: finite,
    grad_norm: finite,
    lambda: finite,
    lr: finite,
  })).min(1),
});

/** What is replayed: settings, and tensors of the sizes that the settings tell. */
class Replay {
  readonly steps: z.infer<typeof Steps>;
  readonly #file: Safetensors;

  constructor(steps: z.infer<typeof Steps>, file: Safetensors) {
    this.steps = steps;
    this.#file = file;
  }

  static async open(folder: Folder): Promise<Replay> {
    const source = await folder.open("steps.json");
    const steps = checkJson(Steps, await readJson(source), source.name);
    const weights = await folder.open("steps.safetensors");
    return new Replay(steps, await Safetensors.open(weights));
  }

  has(name: string): boolean {
    return this.#file.tensors.has(name);
  }

  /** A tensor of n values. */
  async floats(name: string, n: number): Promise<Floats> {
    const { shape } = this.#file.info(name);
    const length = shape.reduce((product, size) => product * size, 1);
    if (length === n) return await this.#file.floats(name);
    throw new RangeError(
      `Cannot replay "${this.#file.source.name}": expected ${n} values in tensor "${name}", as steps.json says: got ${length}`,
    );
  }

  /** All parameters, or their gradients. */
  async params(prefix: string): Promise<SaeParams> {
    const { d_model, n_features: d_sae } = this.steps;
    return {
      W_enc: await this.floats(`${prefix}.W_enc`, d_sae * d_model),
      b_enc: await this.floats(`${prefix}.b_enc`, d_sae),
      W_dec: await this.floats(`${prefix}.W_dec`, d_sae * d_model),
      b_dec: await this.floats(`${prefix}.b_dec`, d_model),
    };
  }
}

/**
 * Replays `steps.safetensors` with the settings of `steps.json` and compares
 * losses and gradient norms of every step, and the parameters, gradients and
 * activations that the file holds (`after.N.*`, `grad.N.*`, `features.N`, `reconstruction.N`).
 * @throws {SyntaxError} If `steps.json` is not of that form.
 * @throws {RangeError} If a tensor is missing or has another size.
 */
export async function replayTraining(
  gpu: Gpu,
  folder: Folder,
): Promise<Check[]> {
  const replay = await Replay.open(folder);
  const { steps } = replay;
  const { d_model, n_features: d_sae, batch } = steps;
  const x = await replay.floats("x", steps.steps.length * batch * d_model);
  using trainer = new SaeTrainer(gpu, {
    d_model,
    d_sae,
    batch,
    inputScale: 1,
    clipNorm: steps.clip_grad_norm,
    betas: steps.betas,
    eps: steps.eps,
  }, await replay.params("init"));

  const checks: Check[] = [];
  const compareParams = async (prefix: string, got: SaeParams) => {
    const want = await replay.params(prefix);
    for (const name of PARAMETERS) {
      const [values, expected] = [got[name], want[name]];
      if (!values || !expected) continue; // a parameter of another architecture
      checks.push(compare(`${prefix}.${name}`, values, expected));
    }
  };
  for (const [i, values] of steps.steps.entries()) {
    const rows = x.slice(i * batch * d_model, (i + 1) * batch * d_model);
    trainer.step(rows, values, { metrics: true });
    if (replay.has(`grad.${i}.W_enc`)) {
      await compareParams(`grad.${i}`, await trainer.gradients());
    }
    if (replay.has(`features.${i}`)) {
      checks.push(...await compareActivations(replay, i, trainer));
    }
    if (replay.has(`after.${i + 1}.W_enc`)) {
      await compareParams(`after.${i + 1}`, await trainer.params());
    }
  }
  await trainer.settle();
  return [...checks, ...compareMetrics(steps.steps, trainer.takeMetrics())];
}

function compare(name: string, got: Numbers, want: Numbers): Check {
  return checkOf(name, relativeError(got, want), LIMIT);
}

/** The activations and the reconstruction of step i, which the trainer has just done. */
async function compareActivations(
  replay: Replay,
  i: number,
  trainer: SaeTrainer,
): Promise<Check[]> {
  const { d_model, n_features: d_sae, batch } = replay.steps;
  const { acts, reconstruction } = await trainer.activations();
  const [features, xHat] = [`features.${i}`, `reconstruction.${i}`];
  return [
    compare(features, acts, await replay.floats(features, batch * d_sae)),
    compare(xHat, reconstruction, await replay.floats(xHat, batch * d_model)),
  ];
}

/** The metrics of all steps. */
function compareMetrics(
  steps: z.infer<typeof Steps>["steps"],
  metrics: readonly StepMetrics[],
): Check[] {
  return metrics.flatMap((got, i) => {
    const want = steps[i]!;
    return [
      compare(`loss.${i}`, [got.loss], [want.loss]),
      compare(`mse.${i}`, [got.mse], [want.mse]),
      compare(`l1.${i}`, [got.l1], [want.l1]),
      compare(`l0.${i}`, [got.L0], [want.l0]),
      compare(`grad_norm.${i}`, [got.gradNorm], [want.grad_norm]),
    ];
  });
}

type Numbers = ArrayLike<number>;
type Floats = Float32Array<ArrayBuffer>;
