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
  const source = await folder.open("steps.json");
  const steps = checkJson(Steps, await readJson(source), source.name);
  const file = await Safetensors.open(await folder.open("steps.safetensors"));
  const { d_model, n_features: d_sae, batch } = steps;
  const floats = async (name: string, n: number): Promise<Floats> => {
    const { shape } = file.info(name);
    const length = shape.reduce((product, size) => product * size, 1);
    if (length === n) return await file.floats(name);
    throw new RangeError(
      `Cannot replay "${file.source.name}": expected ${n} values in tensor "${name}", as steps.json says: got ${length}`,
    );
  };
  const all = async (prefix: string): Promise<SaeParams> => ({
    W_enc: await floats(`${prefix}.W_enc`, d_sae * d_model),
    b_enc: await floats(`${prefix}.b_enc`, d_sae),
    W_dec: await floats(`${prefix}.W_dec`, d_sae * d_model),
    b_dec: await floats(`${prefix}.b_dec`, d_model),
  });
  const x = await floats("x", steps.steps.length * batch * d_model);
  using trainer = new SaeTrainer(gpu, {
    d_model,
    d_sae,
    batch,
    inputScale: 1,
    clipNorm: steps.clip_grad_norm,
    betas: steps.betas,
    eps: steps.eps,
  }, await all("init"));

  const checks: Check[] = [];
  const compare = (name: string, got: Numbers, want: Numbers): void => {
    checks.push(checkOf(name, relativeError(got, want), LIMIT));
  };
  const compareParams = async (prefix: string, got: SaeParams) => {
    const want = await all(prefix);
    for (const name of PARAMETERS) {
      compare(`${prefix}.${name}`, got[name], want[name]);
    }
  };
  for (const [i, values] of steps.steps.entries()) {
    const rows = x.slice(i * batch * d_model, (i + 1) * batch * d_model);
    trainer.step(rows, values, { metrics: true });
    if (file.tensors.has(`grad.${i}.W_enc`)) {
      await compareParams(`grad.${i}`, await trainer.gradients());
    }
    if (file.tensors.has(`features.${i}`)) {
      const { acts, reconstruction } = await trainer.activations();
      const name = `reconstruction.${i}`;
      const want = await floats(`features.${i}`, batch * d_sae);
      compare(`features.${i}`, acts, want);
      compare(name, reconstruction, await floats(name, batch * d_model));
    }
    if (file.tensors.has(`after.${i + 1}.W_enc`)) {
      await compareParams(`after.${i + 1}`, await trainer.params());
    }
  }
  await trainer.settle();
  for (const [i, got] of trainer.takeMetrics().entries()) {
    const want = steps.steps[i]!;
    compare(`loss.${i}`, [got.loss], [want.loss]);
    compare(`mse.${i}`, [got.mse], [want.mse]);
    compare(`l1.${i}`, [got.l1], [want.l1]);
    compare(`l0.${i}`, [got.L0], [want.l0]);
    compare(`grad_norm.${i}`, [got.gradNorm], [want.grad_norm]);
  }
  return checks;
}

type Numbers = ArrayLike<number>;
type Floats = Float32Array<ArrayBuffer>;
