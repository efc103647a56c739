/**
 * What `export --to sae-bench` measures of an SAE: predictions, reconstructions, firing and directions.
 * @module
 */
import { hookPlace, type HookPoint } from "../core/hook_point.ts";
import type { ModelFolder } from "../core/model_folder.ts";
import { Olmo2 } from "../core/olmo2.ts";
import { Sae } from "../core/sae.ts";
import type { SaeFile } from "../core/sae_file.ts";
import type { Gpu } from "../gpu/mod.ts";
import { featureActivations } from "../steer/activations.ts";
import { maxCosines } from "../train/direction_cosines.ts";
import { BenchSums, type FeatureMeasures } from "../train/sae_bench.ts";
import { SplicePass } from "../train/splice_pass.ts";
import type { TaskContext } from "./cli.ts";

/** Features' weights that are read at once. */
const READ_BYTES = 64 * 2 ** 20;

/** What is measured, and on what. */
export interface Bench {
  readonly gpu: Gpu;
  readonly file: SaeFile;
  readonly model: ModelFolder;
  readonly hookPoint: HookPoint;
  readonly sequences: readonly Uint32Array[];
  /** The same, by batches. */
  readonly batches: readonly (readonly Uint32Array[])[];
}

/** What {@link measureBench} gives. */
export type BenchMeasures = ReturnType<BenchSums["finish"]> & {
  readonly sparsity: { readonly l0: number; readonly l1: number };
  readonly features: FeatureMeasures;
};

/** All measures; the SAE and the model are on the GPU while they are needed. */
export async function measureBench(
  bench: Bench,
  context: TaskContext,
): Promise<BenchMeasures> {
  const { gpu, file, model, batches } = bench;
  const sums = new BenchSums(file.d_model);
  let firing: Firing;
  {
    using olmo2 = await Olmo2.load(gpu, model.checkpoint, model.config);
    using sae = await Sae.load(gpu, file);
    const { layer } = hookPlace(bench.hookPoint);
    const longest = longestBatch(batches);
    using pass = new SplicePass(olmo2, sae, layer, longest);
    using bar = context.progress({
      label: "sae-bench",
      unit: "documents",
      total: bench.sequences.length,
    });
    let n = 0;
    for (const batch of batches) {
      context.signal.throwIfAborted();
      sums.add(batch.map(({ length }) => length), await pass.run(batch));
      bar.update(n += batch.length);
    }
    bar.end();
    firing = await measureFiring(bench, olmo2, sae);
  }
  const { l0, l1, density, tokensPerDocument } = firing;
  const weights = await measureWeights(bench, context);
  return {
    ...sums.finish(),
    sparsity: { l0, l1 },
    features: { density, tokensPerDocument, ...weights },
  };
}

type Firing =
  & Pick<FeatureMeasures, "density" | "tokensPerDocument">
  & { readonly l0: number; readonly l1: number };

/** How often and how strongly features fire. */
async function measureFiring(
  { file: { d_sae }, hookPoint, sequences, batches }: Bench,
  olmo2: Olmo2,
  sae: Sae,
): Promise<Firing> {
  const nFired = new Float64Array(d_sae);
  const nDocuments = new Float64Array(d_sae);
  const last = new Int32Array(d_sae).fill(-1); // document in which it fired last
  let [nTokens, nActs, total, document] = [0, 0, 0, 0];
  const documents = sequences.map((ids) => ({ ids }));
  const tokensPerPass = longestBatch(batches);
  const rows = featureActivations(olmo2, sae, hookPoint, documents, {
    tokensPerPass,
  });
  for await (const { acts: { offsets, features, values } } of rows) {
    nTokens += offsets.length - 1;
    nActs += values.length;
    for (const [k, feature] of features.entries()) {
      total += values[k]!;
      nFired[feature]!++;
      if (last[feature] === document) continue;
      last[feature] = document;
      nDocuments[feature]!++;
    }
    document++;
  }
  return {
    l0: nActs / nTokens,
    l1: total / nTokens,
    density: nFired.map((n) => n / nTokens),
    tokensPerDocument: nFired.map((n, i) => n / nDocuments[i]!),
  };
}

/** What the weights tell of features. */
async function measureWeights(
  { gpu, file }: Bench,
  { progress, signal }: TaskContext,
): Promise<Omit<FeatureMeasures, "density" | "tokensPerDocument">> {
  const { d_model, d_sae } = file;
  const encoderNorm = new Float64Array(d_sae);
  const encoderDecoderCosine = new Float64Array(d_sae);
  const step = Math.max(1, Math.floor(READ_BYTES / (4 * d_model)));
  for (let start = 0; start < d_sae; start += step) {
    const end = Math.min(start + step, d_sae);
    const enc = await file.rowsOfEncoder(start, end);
    const dec = await file.rowsOfDecoder(start, end);
    for (let i = start; i < end; i++) {
      let [ee, dd, ed] = [0, 0, 0];
      for (
        let at = (i - start) * d_model;
        at < (i - start + 1) * d_model;
        at++
      ) {
        ee += enc[at]! * enc[at]!;
        dd += dec[at]! * dec[at]!;
        ed += enc[at]! * dec[at]!;
      }
      encoderNorm[i] = Math.sqrt(ee);
      encoderDecoderCosine[i] = ed / Math.sqrt(ee * dd);
    }
  }
  using bar = progress({
    label: "cosines",
    unit: "features",
    total: 2 * d_sae,
  });
  const cosines = (
    before: number,
    rows: (start: number, end: number) => Promise<Float32Array<ArrayBuffer>>,
  ): Promise<Float32Array> =>
    maxCosines(gpu, { d_model, d_sae, rows }, (n) => {
      signal.throwIfAborted();
      bar.update(before + n);
    });
  const maxEncoderCosine = await cosines(0, (a, b) => file.rowsOfEncoder(a, b));
  const maxDecoderCosine = await cosines(
    d_sae,
    (a, b) => file.rowsOfDecoder(a, b),
  );
  bar.end();
  return {
    ...{
      encoderNorm,
      encoderDecoderCosine,
      maxEncoderCosine,
      maxDecoderCosine,
    },
    b_enc: await file.b_enc(),
  };
}

/** Tokens of the batch that has most. */
export function longestBatch(batches: Bench["batches"]): number {
  return batches.reduce(
    (most, batch) =>
      Math.max(most, batch.reduce((n, { length }) => n + length, 0)),
    0,
  );
}
