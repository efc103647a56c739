import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import { sampleBias } from "../kernels/sample_bias.ts";
import { sampleCount } from "../kernels/sample_count.ts";
import { samplePenalize } from "../kernels/sample_penalize.ts";
import {
  hasFilter,
  hasPenalty,
  type Sampling,
  samplingSettings,
} from "./sampling.ts";
import { TokenDraw } from "./token_draw.ts";

/** The mark of a prompt's tokens in `counts`. */
const IN_PROMPT = 2 ** 31;

/**
 * Chooses tokens on the GPU, for a table of replies that come and go. A reply keeps its row of the table;
 * which rows take part in a step, and in which order, may change with every step.
 */
export class Sampler implements Disposable {
  readonly #gpu: Gpu;
  readonly #vocab: number;
  readonly #samplings: (Sampling | undefined)[];
  readonly #owned = new DisposableStack();
  readonly #settings: Tensor; // u32 [maxRows, 8]
  readonly #draw: TokenDraw;
  #penalties: Tensor | undefined; // u32 [maxRows, 5]
  #counts: Tensor | undefined; // u32 [maxRows, vocab]
  #biases: Tensor | undefined; // u32 [most biases so far, 3]

  /**
   * Takes memory for `maxRows` rows; for counts of tokens only when a reply has penalties.
   * @throws {RangeError} If their logits do not fit into one binding.
   */
  constructor(gpu: Gpu, vocab: number, maxRows: number) {
    const most = TokenDraw.mostRows(gpu, vocab);
    if (maxRows > most) {
      throw new RangeError(
        `Cannot sample ${maxRows} replies at once: expected at most ${most}, as their logits must fit into the adapter's binding limit: ask for fewer at a time`,
      );
    }
    this.#gpu = gpu;
    this.#vocab = vocab;
    this.#samplings = Array(maxRows).fill(undefined);
    this.#draw = this.#owned.use(new TokenDraw(gpu, vocab, maxRows));
    this.#settings = this.#owned.use(
      gpu.tensor("sampling", "u32", [maxRows, 8]),
    );
  }

  /**
   * A row begins a reply with these settings, which `checkSamplingSettings` has checked.
   * @param prompt Token ids, for the repetition penalty.
   * @param reply Token ids of a reply that goes on; none when absent.
   */
  begin(
    row: number,
    sampling: Sampling,
    prompt: readonly number[],
    reply: readonly number[] = [],
  ): void {
    this.#samplings[row] = sampling;
    if (!hasPenalty(sampling)) return;
    const nRows = this.#samplings.length;
    const table = (label: string, width: number) =>
      this.#owned.use(this.#gpu.tensor(label, "u32", [nRows, width]));
    this.#counts ??= table("counts", this.#vocab);
    this.#penalties ??= table("penalties", 5);
    const counts = new Uint32Array(this.#vocab);
    for (const token of prompt) counts[token] = IN_PROMPT;
    for (const token of reply) counts[token]!++;
    this.#counts.write(counts, row);
  }

  /**
   * Records the choice of one token for each of `rows`, once in a recording at most: settings are
   * written at once, for the commands that are submitted next.
   * @param logits f32 `[rows.length, vocab]`; biases and penalties change them in place.
   * @param rows Of the table, in the order of the logits; no row twice.
   * @param steps How many tokens each row has so far. With its seed it decides what is drawn.
   * @param tokens u32 `[rows.length]`; 0xffffffff where logits are not finite.
   */
  sample(
    rec: Recorder,
    logits: Tensor,
    rows: readonly number[],
    steps: readonly number[],
    tokens: Tensor,
  ): void {
    const samplings = rows.map((row) => {
      const sampling = this.#samplings[row];
      if (sampling) return sampling;
      throw new RangeError(
        `Cannot sample row ${row}: expected a reply that has begun: got none`,
      );
    });
    const n = rows.length;
    const settings = this.#settings.rows(0, n);
    settings.write(samplingSettings(samplings, steps));
    this.#bias(rec, logits, samplings);
    const penalties = this.#writePenalties(rows, samplings);
    const counts = this.#counts;
    if (penalties && counts) {
      samplePenalize.run(rec, { logits, penalties, counts });
    }
    this.#draw.run(
      rec,
      { logits, settings },
      tokens,
      samplings.some(hasFilter),
    );
    if (penalties && counts) {
      sampleCount.run(rec, { penalties, tokens, counts });
    }
  }

  /**
   * Records the probabilities that the last `sample` drew with, for checks.
   * @param logits As `sample` left them.
   * @param probs f32, shaped as they are; 0 where a filter leaves a token out.
   */
  probs(rec: Recorder, logits: Tensor, probs: Tensor): void {
    const settings = this.#settings.rows(0, logits.nRows);
    this.#draw.probs(rec, { logits, settings }, probs);
  }

  #bias(
    rec: Recorder,
    logits: Tensor,
    samplings: readonly Sampling[],
  ): void {
    const entries = samplings.flatMap(({ logitBias }, i) =>
      [...logitBias ?? []].map(([token, bias]) => [i, token, bias] as const)
    );
    const n = entries.length;
    if (n === 0) return;
    if (!this.#biases || this.#biases.nRows < n) {
      const before = this.#biases;
      // Commands that were recorded may still use the smaller one.
      if (before) rec.afterSubmit(() => before[Symbol.dispose]());
      this.#biases = this.#gpu.tensor("biases", "u32", [2 * n, 3]);
    }
    const words = new Uint32Array(3 * n);
    const asFloats = new Float32Array(words.buffer);
    for (const [i, [row, token, bias]] of entries.entries()) {
      words.set([row, token], 3 * i);
      asFloats[3 * i + 2] = bias;
    }
    const biases = this.#biases.rows(0, n);
    biases.write(words);
    sampleBias.run(rec, { logits, biases });
  }

  /** The rows that have penalties; undefined where none has. */
  #writePenalties(
    rows: readonly number[],
    samplings: readonly Sampling[],
  ): Tensor | undefined {
    const penalized = [...samplings.entries()].filter(([, sampling]) =>
      hasPenalty(sampling)
    );
    if (!this.#penalties || penalized.length === 0) return undefined;
    const words = new Uint32Array(5 * penalized.length);
    const asFloats = new Float32Array(words.buffer);
    for (const [p, [i, sampling]] of penalized.entries()) {
      words.set([i, rows[i]!], 5 * p);
      asFloats.set([
        sampling.repetitionPenalty ?? 1,
        sampling.presencePenalty ?? 0,
        sampling.frequencyPenalty ?? 0,
      ], 5 * p + 2);
    }
    const penalties = this.#penalties.rows(0, penalized.length);
    penalties.write(words);
    return penalties;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#biases?.[Symbol.dispose]();
    this.#owned.dispose();
  }
}
