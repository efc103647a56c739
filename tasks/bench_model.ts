/**
 * A model's speed: reading prompts, and decoding replies.
 * @module
 */
import { KvCache } from "../core/kv_cache.ts";
import { type Olmo2, Workspace } from "../core/olmo2.ts";
import type { Olmo2Config } from "../core/olmo2_config.ts";
import type { Rng } from "../core/rng.ts";
import { tokenBatch, wholeSequences } from "../core/token_batch.ts";
import type { Recorder } from "../gpu/mod.ts";
import { generate } from "../steer/generate.ts";
import {
  type Duration,
  durationOf,
  kernelTime,
  leastTimes,
  median,
  type Rate,
  timesAsLong,
  timingOf,
  wallTime,
} from "./bench_timing.ts";
import { DECODED_ROWS, weightShapes } from "./bench_products.ts";

/** A model that is measured. */
export interface Measured {
  /** Part of the report that it is in. */
  readonly section: string;
  readonly model: Olmo2;
  /** Bytes of a weight. */
  readonly weightBytes: number;
  readonly rng: Rng;
}

/** Numbers of weights that a token meets: those of a block, and of the head. */
function weightCounts(
  config: Olmo2Config,
): { block: number; head: number } {
  const counts = weightShapes(config).map(([out, in_]) => out * in_);
  const head = counts.at(-1)!;
  return { block: counts.reduce((sum, n) => sum + n, 0) - head, head };
}

function drawIds({ model, rng }: Measured, n: number): number[] {
  const { vocab_size } = model.config;
  return Array.from({ length: n }, () => rng.below(vocab_size));
}

/** Times passes over whole prompts, of lengths that are given for each pass. */
export async function benchPrefill(
  measured: Measured,
  all: readonly (readonly number[])[],
): Promise<Rate[]> {
  const { model, section } = measured;
  const { gpu, config } = model;
  const { block } = weightCounts(config);
  const nWeights = model.nLayers * block;
  const rates: Rate[] = [];
  for (const lengths of all) {
    const sequences = lengths.map((n) => drawIds(measured, n));
    const batch = wholeSequences(config, sequences);
    const T = batch.ids.length;
    using work = new Workspace(gpu, config, T);
    using cache = new KvCache(gpu, config, {
      nRows: sequences.length,
      nLayers: model.nLayers,
      isShared: true,
    });
    work.load(batch);
    cache.fit(lengths);
    const [time] = await leastTimes(gpu, [
      (rec) => void model.forward(rec, work, cache),
    ], 3) as [Duration];
    const { ms } = time;
    rates.push({
      section,
      what: `prefill, ${lengths.length} × ${lengths[0]} tokens`,
      ...time,
      rate: 1000 * T / ms,
      unit: "tokens/s",
      gflopPerS: 2 * T * nWeights / ms / 1e6,
    });
  }
  return rates;
}

/** Times that a first token alone is timed, and a whole reply right after it. */
const PAIRS = 3;

/** Times replies from request to last token, at numbers of replies at once; prompts are read before. */
export async function benchDecode(
  measured: Measured,
  allRows: readonly number[],
  mostTokens: number,
): Promise<Rate[]> {
  const { model, section, weightBytes } = measured;
  const { gpu, config } = model;
  const { block, head } = weightCounts(config);
  const nWeights = model.nLayers * block + head;
  const nPrompt = Math.max(1, Math.min(16, config.context_length >> 1));
  const nTokens = Math.min(mostTokens, config.context_length - nPrompt);
  const rates: Rate[] = [];
  for (const rows of allRows) {
    const requests = Array.from({ length: rows }, (_, seed) => ({
      prompt: drawIds(measured, nPrompt),
      sampling: { temperature: 1, topK: 0, topP: 0.9, seed },
    }));
    const run = (maxNewTokens: number) =>
      generate(model, requests, { maxNewTokens, stopIds: [] });
    await run(2); // compiles
    const samples: Duration[] = [];
    for (let i = 0; i < PAIRS; i++) {
      const first = await wallTime(gpu, () => run(1));
      const all = await wallTime(gpu, () => run(nTokens));
      samples.push(perToken(all, first, nTokens - 1));
    }
    const time = durationOf(samples, median);
    const { ms } = time;
    rates.push({
      section,
      what: `decode, ${rows} ${rows === 1 ? "row" : "rows"}`,
      ...time,
      rate: 1000 * rows / ms,
      unit: "tokens/s",
      gbPerS: weightBytes * nWeights / ms / 1e6,
      gflopPerS: 2 * rows * nWeights / ms / 1e6,
      ...(rates[0] && allRows[0] === 1 && timesAsLong(time, rates[0])),
    });
    if (rows === 1) rates.push(...await outsideKernels(measured, run, ms));
  }
  return rates;
}

/** What each of `n` more tokens took. */
function perToken(all: Duration, first: Duration, n: number): Duration {
  return {
    ms: (all.ms - first.ms) / n,
    ...(all.cpuMs !== undefined && first.cpuMs !== undefined && {
      cpuMs: (all.cpuMs - first.cpuMs) / n,
    }),
  };
}

/** Launches of a profile. */
const MOST_LAUNCHES = 2000;

/** What a step takes beside its kernels: recording, reading tokens back. Nothing where it drowns in other work's noise. */
async function outsideKernels(
  { model, section }: Measured,
  run: (maxNewTokens: number) => Promise<unknown>,
  ms: number,
): Promise<Rate[]> {
  const { gpu } = model;
  if (timingOf(gpu) !== "GPU timestamps") return [];
  const perStep = 12 * model.nLayers + 20;
  const n = Math.max(2, Math.min(9, Math.floor(MOST_LAUNCHES / perStep)));
  const kernels = async (n: number) =>
    Math.min(
      await kernelTime(gpu, () => run(n)),
      await kernelTime(gpu, () => run(n)),
    );
  const kernelMs = (await kernels(n) - await kernels(1)) / (n - 1);
  if (kernelMs > ms) return [];
  return [{
    section,
    what: "  of which no kernel runs (recording, readback)",
    ms: ms - kernelMs,
    rate: 100 * (1 - kernelMs / ms),
    unit: "%",
  }];
}

/** Tokens that a row has in the cache in {@link benchBlock}. */
const PAST = 64;

/** Times one block and the head by themselves: a prompt, and decoding steps of 1, 2 and 8 rows. */
export async function benchBlock(
  measured: Measured,
  nPrompt: number,
): Promise<Rate[]> {
  const { model, section, weightBytes } = measured;
  const { gpu, config } = model;
  const { block, head } = weightCounts(config);
  const prefill = await benchPrefill(measured, [[nPrompt]]);
  using owned = new DisposableStack();
  const steps = DECODED_ROWS.map((M) => {
    const work = owned.use(new Workspace(gpu, config, M));
    const cache = owned.use(decodeCache(model, M));
    work.load(decodeBatch(measured, M));
    return (rec: Recorder) => void model.forward(rec, work, cache);
  });
  const heads = DECODED_ROWS.map((M) => {
    const normed = owned.use(gpu.tensor("normed", "f32", [M, config.d_model]));
    const logits = gpu.tensor("logits", "f32", [M, config.vocab_size]);
    owned.use(logits);
    return (rec: Recorder) => model.logits(rec, normed, logits);
  });
  const times = await leastTimes(gpu, [...steps, ...heads]);
  const rates = [...prefill];
  for (
    const [what, first, n] of [["block", 0, block], ["head", 3, head]] as const
  ) {
    for (const [i, M] of DECODED_ROWS.entries()) {
      const time = times[first + i]!;
      const { ms } = time;
      rates.push({
        section,
        what: `${what}, ${M} ${M === 1 ? "row" : "rows"}`,
        ...time,
        rate: 1000 * M / ms,
        unit: "rows/s",
        gbPerS: weightBytes * n / ms / 1e6,
        gflopPerS: 2 * M * n / ms / 1e6,
        ...(M > 1 && timesAsLong(time, times[first]!)),
      });
    }
  }
  return rates;
}

/** A cache in which each row has {@link PAST} tokens and room for one more. */
export function decodeCache(model: Olmo2, nRows: number): KvCache {
  const { nLayers } = model;
  const cache = new KvCache(model.gpu, model.config, {
    nRows,
    nLayers,
    isShared: false,
  });
  cache.fit(Array.from({ length: nRows }, () => PAST + 1));
  return cache;
}

/** A token of each row, behind {@link PAST} others. */
export function decodeBatch(measured: Measured, nRows: number) {
  const parts = Array.from({ length: nRows }, (_, row) => ({
    ids: drawIds(measured, 1),
    row,
    position: PAST,
  }));
  return tokenBatch(measured.model.config, parts);
}
