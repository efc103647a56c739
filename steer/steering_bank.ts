import type { SaeFile } from "../core/sae_file.ts";
import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import { ENTRY_WORDS, steerKernel } from "../kernels/steer.ts";
import type { Intervention } from "./interventions.ts";
import {
  entryWords,
  planEntries,
  type WatchedFeature,
} from "./steering_entries.ts";
import { GrowingWords, SteeringRows } from "./steering_rows.ts";
import {
  checkSources,
  OpenSource,
  type SteerEncoding,
  type SteeringSource,
} from "./steering_source.ts";

/** A token of a pass, as steering sees it. */
export interface SteeredToken {
  /** The set that it obeys; none when undefined. */
  readonly set: number | undefined;
  /** Tokens of the reply up to and with it: 0 in the prompt, i + 1 for the reply's i-th, from 0. */
  readonly n: number;
}

/** Options of {@link SteeringBank.open}. */
export interface SteeringBankOptions {
  /** `relu` when absent. */
  readonly encoding?: SteerEncoding;
}

/** What the kernel does for one feature at one layer. */
interface Entry {
  readonly layer: number;
  /** Its place among the rows. */
  readonly row: number;
  readonly words: Uint32Array<ArrayBuffer>;
}

/** One set of interventions, with its rows on the GPU. */
interface SteeringSet {
  readonly entries: readonly Entry[];
  readonly watched: readonly WatchedFeature[];
}

/** The first entry of a set at a layer, and one past the last. */
type Range = readonly [first: number, end: number];

/**
 * Sets of interventions on the GPU, of which each token of a pass obeys one. Sets come, change and go
 * while replies are generated; of the SAEs only the rows of features that some set names are held.
 *
 * A change takes effect with the next pass. Tokens that were read before it stay as they were read: their
 * keys and values in the cache are not computed again, and later tokens go on seeing them.
 */
export class SteeringBank implements Disposable {
  readonly #gpu: Gpu;
  readonly #owned: DisposableStack;
  readonly #sources: readonly OpenSource[];
  readonly #rows: SteeringRows;
  readonly #nothing: Tensor; // f32 [1, 1]: bound where no activations are captured
  readonly #sets = new Map<number, SteeringSet>();
  #nextSet = 0;
  #change: Promise<unknown> = Promise.resolve(); // the last change that was begun
  readonly #entries: GrowingWords; // u32 [entries, 8]: all sets, layer by layer
  #ranges: ReadonlyMap<number, ReadonlyMap<number, Range>> | undefined; // by set and layer, of #entries; undefined: changed
  readonly #tokens = new Map<number, GrowingWords>(); // by layer, u32 [T, 4]
  readonly #pass = new Map<number, Tensor>(); // the layers where something acts on the pass, and its tokens' words

  private constructor(
    gpu: Gpu,
    sources: readonly SteeringSource[],
    { encoding = "relu" }: SteeringBankOptions,
  ) {
    checkSources(sources);
    using owned = new DisposableStack();
    this.#gpu = gpu;
    this.#sources = sources.map((source) => new OpenSource(source, encoding));
    this.#rows = owned.use(new SteeringRows(gpu, sources[0]!.sae.d_model));
    this.#nothing = owned.use(gpu.tensor("no acts", "f32", [1, 1]));
    this.#entries = owned.use(
      new GrowingWords(gpu, "steered.entry", ENTRY_WORDS),
    );
    this.#owned = owned.move();
  }

  /**
   * A bank without sets, for SAEs of different layers. Nothing of them is read yet.
   * @throws {RangeError} If there is no SAE, their d_model differ, or two are of one layer.
   */
  static open(
    gpu: Gpu,
    sources: readonly SteeringSource[],
    options: SteeringBankOptions = {},
  ): Promise<SteeringBank> {
    return Promise.try(() => new SteeringBank(gpu, sources, options));
  }

  /**
   * A bank of one SAE with sets, which are numbered from 0.
   * @throws {RangeError} As {@link add}.
   */
  static async load(
    gpu: Gpu,
    sae: SaeFile,
    sets: readonly (readonly Intervention[])[],
    options: SteeringBankOptions & { readonly layer: number },
  ): Promise<SteeringBank> {
    const source = { sae, layer: options.layer };
    using loaded = new DisposableStack();
    const bank = loaded.use(await SteeringBank.open(gpu, [source], options));
    for (const set of sets) await bank.add(set);
    loaded.move();
    return bank;
  }

  /**
   * Reads the features' rows, unless they are on the GPU, and makes a set of them.
   * @param watched Features whose activations are captured; the i-th has slot i, whatever its layer.
   * @returns The set's number, which no other set ever gets.
   * @throws {RangeError} If a feature does not exist, is named twice at a layer, or could be of several SAEs, a number is
   * out of range, a maximum is unknown, there are too many, or an SAE of topk has no inference threshold and a mode needs one.
   */
  add(
    interventions: readonly Intervention[],
    watched: readonly WatchedFeature[] = [],
  ): Promise<number> {
    return this.#inTurn(async () => {
      const made = await this.#make(interventions, watched);
      this.#sets.set(this.#nextSet, made);
      this.#ranges = undefined;
      return this.#nextSet++;
    });
  }

  /**
   * Gives a set other interventions, from the next pass on; until then, and where this throws, it stays as it is.
   * Rows that are on the GPU are not read again.
   * @throws {RangeError} As {@link add}, or if there is no such set.
   */
  replace(
    set: number,
    interventions: readonly Intervention[],
    watched: readonly WatchedFeature[] = [],
  ): Promise<void> {
    return this.#inTurn(async () => {
      this.#set(set);
      const made = await this.#make(interventions, watched);
      const before = this.#sets.get(set);
      if (!before) { // removed meanwhile
        this.#release(made.entries);
        this.#set(set);
      }
      this.#sets.set(set, made);
      this.#ranges = undefined;
      if (before) this.#release(before.entries);
    });
  }

  /**
   * Forgets a set; its rows are free for others.
   * @throws {RangeError} If there is no such set.
   */
  remove(set: number): void {
    this.#release(this.#set(set).entries);
    this.#sets.delete(set);
    this.#ranges = undefined;
  }

  /** Blocks after which something acts or is watched now, in order. */
  get layers(): readonly number[] {
    const entries = [...this.#sets.values()].flatMap(({ entries }) => entries);
    return [...new Set(entries.map(({ layer }) => layer))]
      .sort((a, b) => a - b);
  }

  /** Most watched features of any set now: the width of the activations that {@link run} captures. */
  get nSlots(): number {
    return [...this.#sets.values()]
      .reduce((most, { watched }) => Math.max(most, watched.length), 0);
  }

  /**
   * The watched features of a set, in the order of their slots.
   * @throws {RangeError} If there is no such set.
   */
  watchedOf(set: number): readonly WatchedFeature[] {
    return this.#set(set).watched;
  }

  /**
   * Queues what {@link run} needs of a pass's tokens. Call it before the pass is recorded, and wait for nothing in between.
   * @throws {RangeError} If a token names a set that is not there.
   */
  loadPass(tokens: readonly SteeredToken[]): void {
    const ranges = this.#ranges ??= this.#loadEntries();
    const words = new Map<number, Uint32Array<ArrayBuffer>>();
    for (const [t, { set, n }] of tokens.entries()) {
      if (set === undefined) continue;
      this.#set(set);
      for (const [layer, [first, end]] of ranges.get(set)!) {
        const some = words.get(layer) ?? new Uint32Array(4 * tokens.length);
        words.set(layer, some);
        some.set([first, end, n], 4 * t);
      }
    }
    this.#pass.clear();
    for (const [layer, some] of words) {
      let tensor = this.#tokens.get(layer);
      if (!tensor) {
        const label = `steered.tokens[${layer}]`;
        tensor = this.#owned.use(new GrowingWords(this.#gpu, label, 4));
        this.#tokens.set(layer, tensor);
      }
      this.#pass.set(layer, tensor.load(some));
    }
  }

  /**
   * Records the steering after block `layer` of the pass that was loaded; nothing where none of its tokens is steered there.
   * @param resid The residual stream, f32 `[T, d_model]`; changed in place.
   * @param acts f32 `[T, nSlots]` or wider: where the activations of watched features go, as they are before any change. What a
   * token's set does not watch at this layer stays as it was.
   * @throws {RangeError} If a tensor does not fit.
   */
  run(rec: Recorder, layer: number, resid: Tensor, acts?: Tensor): void {
    const tokens = this.#pass.get(layer);
    if (!tokens) return;
    const [T, width = 0] = acts?.shape ?? [];
    if (acts && (T !== tokens.nRows || width < this.nSlots)) {
      throw new RangeError(
        `Cannot capture activations in ${acts}: expected ${tokens.nRows} rows of ${this.nSlots} or more`,
      );
    }
    steerKernel(resid.shape[1]!).run(rec, {
      W_enc: this.#rows.W_enc,
      W_dec: this.#rows.W_dec,
      entry: this.#entries.loaded,
      tokens,
      x: resid,
      acts: acts ?? this.#nothing,
    }, { n_captured: width });
  }

  /** One change after the other, in the order of the calls. */
  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#change.then(change);
    this.#change = done.catch(() => {});
    return done;
  }

  #set(set: number): SteeringSet {
    const found = this.#sets.get(set);
    if (found) return found;
    throw new RangeError(
      `Cannot steer by set ${set}: expected one of the bank's: got ${
        this.#sets.size === 0 ? "an empty bank" : [...this.#sets.keys()]
      }`,
    );
  }

  async #make(
    interventions: readonly Intervention[],
    watched: readonly WatchedFeature[],
  ): Promise<SteeringSet> {
    const planned = planEntries(this.#sources, interventions, watched);
    const words: Uint32Array<ArrayBuffer>[] = [];
    for (const entry of planned) words.push(await entryWords(entry));
    const entries: Entry[] = [];
    try {
      for (const [i, { source, layer, feature }] of planned.entries()) {
        const row = await this.#rows.hold(source.sae, feature);
        words[i]![ENTRY_WORDS - 1] = row;
        entries.push({ layer, row, words: words[i]! });
      }
    } catch (error) {
      this.#release(entries);
      throw error;
    }
    return { entries, watched: [...watched] };
  }

  #release(entries: readonly Entry[]): void {
    for (const { row } of entries) this.#rows.release(row);
  }

  /** Queues the words of all entries, each set's and layer's in one run. */
  #loadEntries(): ReadonlyMap<number, ReadonlyMap<number, Range>> {
    const ranges = new Map<number, ReadonlyMap<number, Range>>();
    const all: Entry[] = [];
    for (const [set, { entries }] of this.#sets) {
      const byLayer = new Map<number, Range>();
      for (const [layer, some] of Map.groupBy(entries, (e) => e.layer)) {
        byLayer.set(layer, [all.length, all.length + some.length]);
        all.push(...some);
      }
      ranges.set(set, byLayer);
    }
    const words = new Uint32Array(ENTRY_WORDS * all.length);
    for (const [e, entry] of all.entries()) {
      words.set(entry.words, ENTRY_WORDS * e);
    }
    if (all.length > 0) this.#entries.load(words);
    return ranges;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
