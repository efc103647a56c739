/**
 * What steering adds to a decoding step.
 * @module
 */
import { Workspace } from "../core/olmo2.ts";
import { foldSae, SaeFile, saveSae } from "../core/sae_file.ts";
import { memoryFolder } from "../core/source.ts";
import type { Gpu, Recorder } from "../gpu/mod.ts";
import { steerKernel } from "../kernels/steer.ts";
import { SteeringBank } from "../steer/interventions.ts";
import { decodeBatch, decodeCache, type Measured } from "./bench_model.ts";
import {
  type Duration,
  median,
  type Recorded,
  timeInTurns,
  timingOf,
} from "./bench_timing.ts";

/** What was measured. */
export interface SteeringCost {
  readonly nFeatures: number;
  /** Milliseconds of a step without steering; the median. */
  readonly plainMs: number;
  /** And with it. */
  readonly steeredMs: number;
  /** Percent that steering adds; the median of the turns. */
  readonly percent: number;
  /** The same from processor times, on a software driver. */
  readonly cpuPercent?: number;
  /** Percent of the step's other kernels that the kernel of steering takes, timed by itself; undefined without timestamps. */
  readonly kernelPercent?: number;
}

/** Features of the SAE that is made; how many it has makes no difference, since only the rows of steered ones are held. */
const N_FEATURES = 10;
const TURNS = 21;

/** Times a decoding step of one row with and without ten clamped features, in turns. */
export async function benchSteering(measured: Measured): Promise<SteeringCost> {
  const { model } = measured;
  const { gpu, config } = model;
  using work = new Workspace(gpu, config, 1);
  using cache = decodeCache(model, 1);
  const features = Array.from({ length: N_FEATURES }, (_, feature) => ({
    feature,
    mode: "clamp" as const,
    strength: 1,
    unit: "absolute" as const,
  }));
  const sae = await randomSae(measured);
  using bank = await SteeringBank.load(gpu, sae, [features], { layer: 0 });
  work.load(decodeBatch(measured, 1));
  bank.loadPass([{ set: 0, n: 1 }]);
  const step = (isSteered: boolean) => (rec: Recorder) =>
    void model.forward(rec, work, cache, {
      ...(isSteered && {
        hook: (rec, layer, resid) => bank.run(rec, layer, resid),
      }),
    });
  const [plain, steered] = await timeInTurns(
    gpu,
    [step(false), step(true)],
    TURNS,
  ) as [Duration[], Duration[]];
  const more = (a: readonly number[], b: readonly number[]): number =>
    100 * (median(b.map((ms, i) => ms / a[i]!)) - 1);
  const cpu = (turns: readonly Duration[]): number[] =>
    turns.flatMap(({ cpuMs }) => cpuMs ?? []);
  const walls = [plain, steered].map((turns) => turns.map(({ ms }) => ms)) as [
    number[],
    number[],
  ];
  const kernelPercent = await shareOfKernel(gpu, step(true));
  return {
    nFeatures: N_FEATURES,
    plainMs: median(walls[0]),
    steeredMs: median(walls[1]),
    percent: more(...walls),
    ...(gpu.isSoftware && { cpuPercent: more(cpu(plain), cpu(steered)) }),
    ...(kernelPercent !== undefined && { kernelPercent }),
  };
}

/** Percent of the other kernels' time that the kernel of steering takes; the median of some steps. */
async function shareOfKernel(
  gpu: Gpu,
  record: Recorded,
): Promise<number | undefined> {
  if (timingOf(gpu) !== "GPU timestamps") return undefined;
  const shares: number[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    const profile = gpu.startProfile();
    gpu.record("steered step", record);
    const kernels = await profile.stop();
    const all = kernels.reduce((sum, { ms }) => sum + ms, 0);
    const own = kernels.find(({ kernel }) =>
      kernel === steerKernel(1).name
    )?.ms ?? NaN;
    shares.push(100 * own / (all - own));
  }
  await gpu.settled();
  return median(shares);
}

/** An SAE of random directions, in memory. */
async function randomSae({ model, rng }: Measured): Promise<SaeFile> {
  const { d_model } = model.config;
  const normals = (n: number) =>
    Float32Array.from({ length: n }, () => rng.normal());
  const weights = {
    d_model,
    d_sae: N_FEATURES,
    W_enc: normals(N_FEATURES * d_model),
    b_enc: normals(N_FEATURES),
    W_dec: normals(N_FEATURES * d_model),
    b_dec: normals(d_model),
  };
  foldSae(weights, 1);
  const files: Record<string, Uint8Array> = {};
  await saveSae(async (file, content) => {
    const chunks = typeof content === "string"
      ? [new TextEncoder().encode(content)]
      : content instanceof Uint8Array
      ? [content]
      : await Array.fromAsync(content);
    const blob = new Blob(chunks.map((chunk) => chunk.slice()));
    files[file] = new Uint8Array(await blob.arrayBuffer());
  }, {
    weights,
    metadata: {
      architecture: "relu",
      hookPoint: "resid_post[0]",
      modelName: "random weights",
      inputScale: 1,
      nTokensTrained: 0,
    },
  });
  return await SaeFile.open(memoryFolder("random SAE", files));
}
