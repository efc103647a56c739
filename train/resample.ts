/**
 * Gives dead features another start: in the direction of an input that is explained badly.
 * Source: Bricken et al. 2023, "Towards Monosemanticity", neuron resampling; with free decoder
 * norms the new rows get the norm of live ones, since the L1 term weighs activations by it.
 * @module
 */
import type { Rng } from "../core/rng.ts";
import type { SaeParams } from "./init.ts";
import type { SaeTrainer, TrainerBatch } from "./trainer.ts";
import { isTopK } from "./training_tensors.ts";

/** Batches that inputs are drawn from. */
const PROBES = 8;
/** Norm of a new encoder row, as a share of the mean norm of live ones: small, so that a new feature disturbs little. */
const ENCODER_SHARE = 0.2;
/** The same where only the largest activations are kept, of which a new one has to be to learn anything. */
const ENCODER_SHARE_OF_TOPK = 1;

/** What a resampling needs. */
export interface ResampleOptions {
  readonly trainer: SaeTrainer;
  /** The next batch of the run's data. */
  readonly next: () => Promise<TrainerBatch>;
  /** Tokens without firing after which a feature is dead. */
  readonly deadAfter: number;
  /** Threshold of new features, where there are any. */
  readonly initThreshold: number;
  /** Draws the inputs. */
  readonly rng: Rng;
}

/** An input that may become a feature. */
interface Candidate {
  /** Smaller is more likely to be taken: an exponential draw with rate loss². */
  readonly key: number;
  readonly x: Float32Array;
}

/** Resamples the dead features; returns how many. The moments of their parameters become 0. */
export async function resampleDead(options: ResampleOptions): Promise<number> {
  const { trainer, deadAfter } = options;
  const waited = await trainer.tokensSinceFired();
  const dead = [...waited.keys()].filter((i) => waited[i]! >= deadAfter);
  if (dead.length === 0) return 0;
  const inputs = await drawInputs(options, dead.length);
  const replaced = dead.slice(0, inputs.length);
  const isLive = (i: number): boolean => waited[i]! < deadAfter;
  const norms = await trainer.rowNorms();
  const { architecture } = trainer.config;
  const share = isTopK(architecture) ? ENCODER_SHARE_OF_TOPK : ENCODER_SHARE;
  const rows = newRows(inputs, {
    encoderNorm: share * meanOf(norms.encoder, isLive),
    decoderNorm: meanOf(norms.decoder, isLive),
    b_dec: await trainer.decoderBias(),
    threshold: architecture === "jumprelu" ? options.initThreshold : undefined,
  });
  trainer.replaceFeatures(replaced, rows);
  return replaced.length;
}

/** Up to n inputs of the next batches without replacement, each with a probability in proportion to its squared loss. */
async function drawInputs(
  { trainer, next, rng }: ResampleOptions,
  n: number,
): Promise<Float32Array[]> {
  const { d_model } = trainer.config;
  let candidates: Candidate[] = [];
  for (let probe = 0; probe < PROBES; probe++) {
    trainer.probe(await next());
    const { x, err } = await trainer.errors();
    for (let at = 0; at < x.length; at += d_model) {
      const loss = squareOf(err.subarray(at, at + d_model));
      if (!(loss > 0)) continue; // explained to the last bit, and never drawn
      const key = -Math.log(1 - rng.uniform()) / (loss * loss);
      candidates.push({ key, x: x.slice(at, at + d_model) });
    }
    candidates = candidates.sort((a, b) => a.key - b.key).slice(0, n);
  }
  return candidates.map(({ x }) => x);
}

function newRows(
  inputs: readonly Float32Array[],
  { encoderNorm, decoderNorm, b_dec, threshold }: {
    readonly encoderNorm: number;
    readonly decoderNorm: number;
    readonly b_dec: Float32Array<ArrayBuffer>;
    readonly threshold: number | undefined;
  },
): SaeParams {
  const n = inputs.length;
  const d_model = b_dec.length;
  const W_enc = new Float32Array(n * d_model);
  const W_dec = new Float32Array(n * d_model);
  const b_enc = new Float32Array(n);
  for (const [i, x] of inputs.entries()) {
    const centered = Float64Array.from(x, (value, j) => value - b_dec[j]!);
    const norm = Math.sqrt(squareOf(centered)) || 1;
    for (let j = 0; j < d_model; j++) {
      const direction = centered[j]! / norm;
      W_enc[i * d_model + j] = encoderNorm * direction;
      W_dec[i * d_model + j] = decoderNorm * direction;
      b_enc[i]! -= encoderNorm * direction * b_dec[j]!;
    }
  }
  return {
    W_enc,
    b_enc,
    W_dec,
    b_dec,
    ...(threshold !== undefined && {
      log_threshold: new Float32Array(n).fill(Math.log(threshold)),
    }),
  };
}

function squareOf(values: Float32Array | Float64Array): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return sum;
}

/** Mean over those that are kept; over all where none is. */
function meanOf(values: Float32Array, keep: (i: number) => boolean): number {
  const kept = values.filter((_, i) => keep(i));
  const counted = kept.length > 0 ? kept : values;
  return counted.reduce((sum, value) => sum + value, 0) / counted.length;
}
