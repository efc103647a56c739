/**
 * What quantization changes at the sizes of OLMo-2 7B: products by random weights, and a block's output.
 * @module
 */
import { KvCache } from "../core/kv_cache.ts";
import { Olmo2, Workspace } from "../core/olmo2.ts";
import type { Olmo2Config } from "../core/olmo2_config.ts";
import type { Rng } from "../core/rng.ts";
import type { Checkpoint } from "../core/safetensors.ts";
import { wholeSequences } from "../core/token_batch.ts";
import type { Gpu, QuantizedDtype } from "../gpu/mod.ts";
import { matmul } from "../kernels/matmul.ts";
import { quantize } from "../kernels/quantize.ts";
import { fillRandom } from "./bench_ceilings.ts";
import { randomCheckpoint } from "./bench_random.ts";

/** How far something is from what it is with the weights of the checkpoint. */
export interface QuantizationError {
  readonly what: string;
  readonly type: QuantizedDtype;
  /** ‖quantized − bf16‖ / ‖bf16‖ over all values; weights are N(0, 0.02). */
  readonly relative: number;
}

/** Tokens of the block, and rows of the products. */
const N_TOKENS = 64;

/** Errors of both quantized types. */
export async function measureErrors(
  gpu: Gpu,
  config: Olmo2Config,
  rng: Rng,
): Promise<QuantizationError[]> {
  const { d_model, d_ffn } = config;
  return [
    ...await productErrors(gpu, rng, [d_model, d_model]),
    ...await productErrors(gpu, rng, [d_model, d_ffn]),
    ...await blockErrors(gpu, config, rng),
  ];
}

async function productErrors(
  gpu: Gpu,
  rng: Rng,
  [N, K]: readonly [N: number, K: number],
): Promise<QuantizationError[]> {
  using owned = new DisposableStack();
  const x = Float32Array.from({ length: N_TOKENS * K }, () => rng.normal());
  const A = owned.use(gpu.floats("x", [N_TOKENS, K], x));
  const B = owned.use(gpu.tensor("W", "bf16", [N, K]));
  const C = owned.use(gpu.tensor("y", "f32", [N_TOKENS, N]));
  const notFinite = owned.use(gpu.tensor("not_finite", "u32", [1]));
  fillRandom(B);
  gpu.record("product", (rec) => matmul(rec, { layout: "mk,nk", A, B, C }));
  const want = await gpu.read(C);
  const errors: QuantizationError[] = [];
  for (const type of ["q8", "q4"] as const) {
    using rounded = gpu.tensor("W", type, [N, K]);
    gpu.record("quantized product", (rec) => {
      quantize(rec, { source: B, target: rounded, notFinite });
      matmul(rec, { layout: "mk,nk", A, B: rounded, C });
    });
    const relative = relativeError(await gpu.read(C), want);
    errors.push({
      what: `x[${N_TOKENS}, ${K}] · W[${N}, ${K}]ᵀ`,
      type,
      relative,
    });
  }
  return errors;
}

async function blockErrors(
  gpu: Gpu,
  config: Olmo2Config,
  rng: Rng,
): Promise<QuantizationError[]> {
  const checkpoint = withPlainNorms(randomCheckpoint(config));
  const ids = Array.from(
    { length: N_TOKENS },
    () => rng.below(config.vocab_size),
  );
  const output = async (quantize?: QuantizedDtype): Promise<Float32Array> => {
    const options = { quantize, nLayers: 1, withHead: false };
    using model = await Olmo2.load(gpu, checkpoint, config, options);
    using work = new Workspace(gpu, config, N_TOKENS);
    using cache = new KvCache(gpu, config, {
      nRows: 1,
      nLayers: 1,
      isShared: true,
    });
    work.load(wholeSequences(config, [ids]));
    cache.fit([N_TOKENS]);
    gpu.record("block", (rec) => void model.forward(rec, work, cache));
    return await gpu.read(work.tokens.resid);
  };
  const want = await output();
  const errors: QuantizationError[] = [];
  for (const type of ["q8", "q4"] as const) {
    const relative = relativeError(await output(type), want);
    errors.push({
      what: `output of a block, ${N_TOKENS} tokens`,
      type,
      relative,
    });
  }
  return errors;
}

/** Norms that leave lengths alone, as those of a trained model about do. */
function withPlainNorms(checkpoint: Checkpoint): Checkpoint {
  return {
    ...checkpoint,
    floats: (name) =>
      Promise.resolve(
        new Float32Array(checkpoint.info(name).shape[0]!).fill(1),
      ),
  };
}

function relativeError(
  got: Float32Array,
  want: Float32Array,
): number {
  let [error, total] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    error += (got[i]! - want[i]!) ** 2;
    total += want[i]! ** 2;
  }
  return Math.sqrt(error / total);
}
