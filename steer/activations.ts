/**
 * Which features fire on which tokens: the model up to the SAE's layer, the
 * encoder, and what is not 0 of it.
 * @module
 */
import { hookPlace, type HookPoint } from "../core/hook_point.ts";
import { KvCache } from "../core/kv_cache.ts";
import { type Olmo2, Workspace } from "../core/olmo2.ts";
import type { Sae } from "../core/sae.ts";
import { SaeEncoder } from "../core/sae_encoder.ts";
import { wholeSequences } from "../core/token_batch.ts";
import type { Tensor } from "../gpu/mod.ts";
import { gatherRows } from "../kernels/gather_rows.ts";
import { saeCompact } from "../kernels/sae_compact.ts";

/** Activations that are not 0, row by row, one row a token (CSR). */
export interface SparseActivations {
  /** Row t is elements `[offsets[t], offsets[t + 1])` of the arrays below; `[n_tokens + 1]`. */
  readonly offsets: Uint32Array;
  /** Indices of features, rising within a row. */
  readonly features: Uint32Array;
  /** Their activations, in the units of the SAE. */
  readonly values: Float32Array;
}

/** One sequence with what fires on it. */
export interface SequenceActivations<S> {
  /** The sequence that was given. */
  readonly sequence: S;
  /** One row for each of its tokens from `skipFirst` on. */
  readonly acts: SparseActivations;
}

/** Options of {@link featureActivations}. */
export interface ActivationOptions {
  /** Tokens of one pass; 2048 when absent. A sequence may not be longer. */
  readonly tokensPerPass?: number;
  /** Tokens at the start of each sequence that are left out; 1 when absent, since the start token's stream is like no other. */
  readonly skipFirst?: number;
}

/** Features a token that lists have room for at first; a pass that needs more is run again with more. */
const FIRST_CAP = 128;

/**
 * Runs sequences through the model and the encoder, several a pass, in order.
 * Blocks after the SAE's layer are not run.
 * @throws {RangeError} If the SAE does not fit the model, a sequence is longer than a
 * pass or the model's context, or so many features fire that they exceed a binding.
 */
export async function* featureActivations<
  S extends { readonly ids: ArrayLike<number> },
>(
  model: Olmo2,
  sae: Sae,
  hookPoint: HookPoint,
  sequences: AsyncIterable<S> | Iterable<S>,
  options: ActivationOptions = {},
): AsyncGenerator<SequenceActivations<S>> {
  const { tokensPerPass = 2048, skipFirst = 1 } = options;
  using encoder = new SparseEncoder(model, sae, hookPoint, tokensPerPass);
  for await (const part of passesOf(sequences, tokensPerPass)) {
    const acts = await encoder.run(part.map(({ ids }) => ids), skipFirst);
    let row = 0;
    for (const sequence of part) {
      const nRows = Math.max(0, sequence.ids.length - skipFirst);
      yield { sequence, acts: rowsOf(acts, row, row + nRows) };
      row += nRows;
    }
  }
}

/** Rows `[start, end)`; shares the memory of features and values. */
export function rowsOf(
  { offsets, features, values }: SparseActivations,
  start: number,
  end: number,
): SparseActivations {
  const [first, last] = [offsets[start]!, offsets[end]!];
  return {
    offsets: offsets.slice(start, end + 1).map((offset) => offset - first),
    features: features.subarray(first, last),
    values: values.subarray(first, last),
  };
}

/** The rows of several, one after the other. */
export function joinRows(
  parts: readonly SparseActivations[],
): SparseActivations {
  const nRows = sum(parts.map(({ offsets }) => offsets.length - 1));
  const size = sum(parts.map(({ values }) => values.length));
  const offsets = new Uint32Array(nRows + 1);
  const features = new Uint32Array(size);
  const values = new Float32Array(size);
  let row = 0;
  let at = 0;
  for (const part of parts) {
    features.set(part.features, at);
    values.set(part.values, at);
    for (let t = 1; t < part.offsets.length; t++) {
      offsets[++row] = at + part.offsets[t]!;
    }
    at += part.values.length;
  }
  return { offsets, features, values };
}

/** Groups sequences into passes of at most `tokensPerPass` tokens, at least one each. */
async function* passesOf<S extends { readonly ids: ArrayLike<number> }>(
  sequences: AsyncIterable<S> | Iterable<S>,
  tokensPerPass: number,
): AsyncGenerator<S[]> {
  let part: S[] = [];
  let nTokens = 0;
  for await (const sequence of sequences) {
    if (part.length > 0 && nTokens + sequence.ids.length > tokensPerPass) {
      yield part;
      part = [];
      nTokens = 0;
    }
    part.push(sequence);
    nTokens += sequence.ids.length;
  }
  if (part.length > 0) yield part;
}

/** The GPU memory of the passes. */
class SparseEncoder implements Disposable {
  readonly #model: Olmo2;
  readonly #sae: Sae;
  readonly #place: ReturnType<typeof hookPlace>;
  readonly #owned = new DisposableStack();
  readonly #work: Workspace;
  readonly #cache: KvCache;
  readonly #rows: Tensor; // u32 [tokens]: which tokens are encoded
  readonly #x: Tensor; // f32 [tokens, d_model]
  readonly #normed: Tensor | undefined; // f32 [tokens, d_model], for final_norm@l
  readonly #encoder: SaeEncoder;
  #lists: Tensor | undefined; // u32 [tokens, 1 + 2 cap]

  constructor(
    model: Olmo2,
    sae: Sae,
    hookPoint: HookPoint,
    nTokens: number,
  ) {
    const { gpu, config } = model;
    const { d_model } = config;
    const place = hookPlace(hookPoint);
    if (sae.d_model !== d_model || place.layer >= model.nLayers) {
      throw new RangeError(
        `Cannot encode ${hookPoint}: expected an SAE of d_model ${d_model} behind one of ${model.nLayers} layers: got d_model ${sae.d_model} behind layer ${place.layer}: take the model that the SAE was trained on`,
      );
    }
    this.#model = model;
    this.#sae = sae;
    this.#place = place;
    using owned = new DisposableStack();
    const tensor = (label: string, dtype: "f32" | "u32", shape: number[]) =>
      owned.use(gpu.tensor(label, dtype, shape));
    this.#work = owned.use(new Workspace(gpu, config, nTokens));
    const cache = { nRows: 1, nLayers: 1, isShared: true };
    this.#cache = owned.use(new KvCache(gpu, config, cache));
    this.#rows = tensor("rows", "u32", [nTokens]);
    this.#x = tensor("x", "f32", [nTokens, d_model]);
    this.#normed = place.site === "final_norm"
      ? tensor("final_norm", "f32", [nTokens, d_model])
      : undefined;
    this.#encoder = owned.use(new SaeEncoder(sae, nTokens));
    this.#owned = owned.move();
  }

  /** What fires on all tokens of one pass but the first `skipFirst` of each sequence. */
  async run(
    sequences: readonly ArrayLike<number>[],
    skipFirst: number,
  ): Promise<SparseActivations> {
    const batch = wholeSequences(this.#model.config, sequences);
    this.#work.load(batch);
    this.#cache.fit(sequences.map((ids) => ids.length));
    const rows = Uint32Array.from(batch.ids.keys())
      .filter((t) => batch.places[2 * t + 1]! >= skipFirst);
    if (rows.length === 0) return csr(new Uint32Array(0), 0, 1);
    this.#rows.rows(0, rows.length).write(rows);
    for (let cap = this.#cap;;) {
      const lists = this.#listsOf(cap).rows(0, rows.length);
      this.#record(lists);
      const words = await this.#model.gpu.readInts(lists);
      const width = 1 + 2 * cap;
      let most = 0;
      for (let at = 0; at < words.length; at += width) {
        most = Math.max(most, words[at]!);
      }
      if (most <= cap) return csr(words, rows.length, width);
      cap = Math.min(2 ** Math.ceil(Math.log2(most)), this.#sae.d_sae);
    }
  }

  /** Records the pass over the batch that was loaded. */
  #record(lists: Tensor): void {
    const { layer } = this.#place;
    const n = lists.nRows;
    const x = this.#x.rows(0, n);
    const normed = this.#normed?.rows(0, n);
    this.#model.gpu.record("feature activations", (rec) => {
      const resid = this.#model.forward(rec, this.#work, this.#cache, {
        nLayers: layer + 1,
      });
      gatherRows.run(rec, { x: resid, rows: this.#rows.rows(0, n), y: x });
      if (normed) this.#model.finalNorm(rec, x, normed);
      this.#encoder.encode(rec, normed ?? x, (acts, { start }) => {
        saeCompact.run(rec, { acts, lists }, { start });
      });
    });
  }

  get #cap(): number {
    return this.#lists
      ? (this.#lists.shape[1]! - 1) / 2
      : Math.min(FIRST_CAP, this.#sae.d_sae);
  }

  #listsOf(cap: number): Tensor {
    if (this.#lists && this.#cap >= cap) return this.#lists;
    const { gpu } = this.#model;
    const nTokens = this.#rows.nRows;
    const bytes = 4 * nTokens * (1 + 2 * cap);
    const most = gpu.limits.maxStorageBufferBindingSize;
    if (bytes > most) {
      throw new RangeError(
        `Cannot list the features that fire: ${cap} a token on ${nTokens} tokens take ${bytes} bytes, and the adapter binds ${most}: take fewer tokens a pass, or an SAE with a lower L0`,
      );
    }
    this.#lists?.[Symbol.dispose]();
    const shape = [nTokens, 1 + 2 * cap];
    return this.#lists = gpu.tensor("lists", "u32", shape);
  }

  [Symbol.dispose](): void {
    this.#lists?.[Symbol.dispose]();
    this.#owned.dispose();
  }
}

/**
 * The lists that `sae_compact` wrote, without their gaps.
 * @throws {RangeError} If an activation is not finite.
 */
function csr(
  lists: Uint32Array<ArrayBuffer>,
  nRows: number,
  width: number,
): SparseActivations {
  const bits = new Float32Array(lists.buffer);
  const cap = (width - 1) / 2;
  const offsets = new Uint32Array(nRows + 1);
  for (let t = 0; t < nRows; t++) {
    offsets[t + 1] = offsets[t]! + lists[t * width]!;
  }
  const features = new Uint32Array(offsets[nRows]!);
  const values = new Float32Array(offsets[nRows]!);
  for (let t = 0; t < nRows; t++) {
    const first = t * width + 1;
    const n = lists[t * width]!;
    features.set(lists.subarray(first, first + n), offsets[t]!);
    values.set(bits.subarray(first + cap, first + cap + n), offsets[t]!);
  }
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return { offsets, features, values };
  throw new RangeError(
    `Cannot encode a pass: expected finite activations: got ${
      values[bad]
    } for feature ${features[bad]}: the model or the SAE is damaged`,
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
