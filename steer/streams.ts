/**
 * A pass over whole sequences with everything it computes read back, for checks.
 * @module
 */
import { KvCache } from "../core/kv_cache.ts";
import { type Olmo2, Workspace } from "../core/olmo2.ts";
import { wholeSequences } from "../core/token_batch.ts";
import type { Tensor } from "../gpu/mod.ts";
import type { SteeringBank } from "./interventions.ts";

/** Everything a pass over whole sequences computes, tokens one after the other. */
export interface Streams {
  /** f32 `[T, vocab_size]`. */
  readonly logits: Float32Array;
  /** One for each block, f32 `[T, d_model]`. */
  readonly resid_post: readonly Float32Array[];
  /** The final norm of `resid_post[n_layers/2 - 1]`, f32 `[T, d_model]`. */
  readonly halfDepth: Float32Array;
}

/** Runs whole sequences through a model, steered by the first set of a bank if there is one, and reads everything back. */
export async function streams(
  model: Olmo2,
  sequences: readonly (readonly number[])[],
  bank?: SteeringBank,
): Promise<Streams> {
  const { gpu, config } = model;
  const batch = wholeSequences(config, sequences);
  const T = batch.ids.length;
  using owned = new DisposableStack();
  const f32 = (label: string, width: number): Tensor =>
    owned.use(gpu.tensor(label, "f32", [T, width]));
  const work = owned.use(new Workspace(gpu, config, T));
  const cache = owned.use(
    new KvCache(gpu, config, {
      nRows: sequences.length,
      nLayers: model.nLayers,
      isShared: true,
    }),
  );
  const captured = Array.from(
    { length: model.nLayers },
    (_, l) => f32(`resid_post[${l}]`, config.d_model),
  );
  const [halfDepth, normed] = [
    f32("half_depth", config.d_model),
    f32("final_norm", config.d_model),
  ];
  const logits = f32("logits", config.vocab_size);
  bank?.loadPass(Array.from({ length: T }, () => ({ set: 0, n: 0 })));
  work.load(batch);
  cache.fit(sequences.map((ids) => ids.length));
  gpu.record("verify", (rec) => {
    const resid = model.forward(rec, work, cache, {
      hook: (rec, l, resid) => {
        bank?.run(rec, l, resid);
        rec.copy(resid, captured[l]!);
      },
    });
    model.finalNorm(
      rec,
      captured[Math.max(0, Math.floor(config.n_layers / 2) - 1)]!,
      halfDepth,
    );
    model.finalNorm(rec, resid, normed);
    model.logits(rec, normed, logits);
  });
  return {
    logits: await gpu.read(logits),
    resid_post: await Promise.all(captured.map((tensor) => gpu.read(tensor))),
    halfDepth: await gpu.read(halfDepth),
  };
}
