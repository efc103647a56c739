/**
 * What a model predicts as it is, with an SAE's reconstruction in place of its stream, and with zeros there.
 * @module
 */
import { KvCache } from "../core/kv_cache.ts";
import { type Olmo2, Workspace } from "../core/olmo2.ts";
import { decodeWindow, type Sae } from "../core/sae.ts";
import { SaeEncoder } from "../core/sae_encoder.ts";
import { FIRST_POSITION } from "../core/sae_splice.ts";
import { wholeSequences } from "../core/token_batch.ts";
import type { Recorder, Tensor } from "../gpu/mod.ts";
import { crossEntropy } from "../kernels/cross_entropy.ts";
import { gatherRows } from "../kernels/gather_rows.ts";
import { klDivergence } from "../kernels/kl_divergence.ts";
import { replaceRows } from "../kernels/replace_rows.ts";

/** Whose predictions they are. */
export type SpliceKind = "model" | "sae" | "zero";

/** What one pass gives. */
export interface SpliceResult {
  /** Negative log-likelihood of each token's successor, in nats, f32 `[T]`; 0 where there is none. */
  readonly nll: Readonly<Record<SpliceKind, Float32Array>>;
  /** Divergence from the model's own probabilities, in nats, f32 `[T]`. */
  readonly kl: Readonly<Record<"sae" | "zero", Float32Array>>;
  /** The stream, f32 `[T, d_model]`. */
  readonly x: Float32Array;
  /** Its reconstruction, f32 `[T, d_model]`. */
  readonly xHat: Float32Array;
}

/** Rows of logits that are computed at once, twice. */
const LOGIT_ROWS = 256;
const KINDS = ["model", "sae", "zero"] as const;

/** The GPU memory of passes over whole sequences of up to `maxTokens` tokens. */
export class SplicePass implements Disposable {
  readonly #model: Olmo2;
  readonly #sae: Sae;
  readonly #layer: number;
  readonly #owned: DisposableStack;
  readonly #work: Workspace;
  readonly #cache: KvCache;
  readonly #encoder: SaeEncoder;
  readonly #x: Tensor; // f32 [maxTokens, d_model]
  readonly #xHat: Tensor; // f32 [maxTokens, d_model]
  readonly #zero: Tensor; // f32 [1, d_model]
  readonly #normed: Readonly<Record<SpliceKind, Tensor>>; // f32 [maxTokens, d_model]
  readonly #nll: Readonly<Record<SpliceKind, Tensor>>; // f32 [maxTokens]
  readonly #kl: Readonly<Record<"sae" | "zero", Tensor>>; // f32 [maxTokens]
  readonly #logits: readonly [own: Tensor, other: Tensor]; // f32 [LOGIT_ROWS, vocab]
  readonly #targets: Tensor; // u32 [maxTokens]
  readonly #tokens: Tensor; // u32 [maxTokens]: 0, 1, …

  /**
   * Takes the memory.
   * @param model Whole, with its head.
   * @param layer Block whose output the SAE reads.
   */
  constructor(model: Olmo2, sae: Sae, layer: number, maxTokens: number) {
    const { gpu, config } = model;
    using owned = new DisposableStack();
    const floats = (label: string, ...shape: number[]): Tensor =>
      owned.use(gpu.tensor(label, "f32", shape));
    const stream = (label: string): Tensor =>
      floats(label, maxTokens, config.d_model);
    this.#model = model;
    this.#sae = sae;
    this.#layer = layer;
    this.#work = owned.use(new Workspace(gpu, config, maxTokens));
    this.#cache = owned.use(
      new KvCache(gpu, config, {
        nRows: 1,
        nLayers: model.nLayers,
        isShared: true,
      }),
    );
    this.#encoder = owned.use(new SaeEncoder(sae, maxTokens));
    this.#x = stream("x");
    this.#xHat = stream("x_hat");
    this.#zero = floats("zero", 1, config.d_model);
    this.#normed = {
      model: stream("normed"),
      sae: stream("normed of the SAE"),
      zero: stream("normed of zeros"),
    };
    this.#nll = {
      model: floats("nll", maxTokens),
      sae: floats("nll of the SAE", maxTokens),
      zero: floats("nll of zeros", maxTokens),
    };
    this.#kl = {
      sae: floats("kl of the SAE", maxTokens),
      zero: floats("kl of zeros", maxTokens),
    };
    const rows = Math.min(LOGIT_ROWS, maxTokens);
    this.#logits = [
      floats("logits", rows, config.vocab_size),
      floats("other logits", rows, config.vocab_size),
    ];
    this.#targets = owned.use(gpu.tensor("targets", "u32", [maxTokens]));
    this.#tokens = owned.use(
      gpu.upload(
        "tokens",
        "u32",
        [maxTokens],
        Uint32Array.from({ length: maxTokens }, (_, t) => t),
      ),
    );
    this.#owned = owned.move();
  }

  /** Runs sequences three times; their tokens stand one after the other in the results. */
  async run(sequences: readonly ArrayLike<number>[]): Promise<SpliceResult> {
    const { gpu, config } = this.#model;
    const batch = wholeSequences(config, sequences);
    const T = batch.ids.length;
    this.#work.load(batch);
    this.#cache.fit(sequences.map(({ length }) => length));
    this.#targets.rows(0, T).write(successors(sequences, config.vocab_size));
    for (const kind of KINDS) {
      gpu.record(`predict with the ${kind}`, (rec) => {
        const resid = this.#model.forward(rec, this.#work, this.#cache, {
          hook: (rec, layer, resid) => {
            if (layer === this.#layer) this.#splice(rec, kind, resid);
          },
        });
        const normed = this.#normed[kind].rows(0, T);
        this.#model.finalNorm(rec, resid, normed);
      });
    }
    const step = this.#logits[0].nRows;
    for (let row = 0; row < T; row += step) {
      this.#score(row, Math.min(row + step, T));
    }
    const read = (tensor: Tensor): Promise<Float32Array> =>
      gpu.read(tensor.rows(0, T));
    return {
      nll: {
        model: await read(this.#nll.model),
        sae: await read(this.#nll.sae),
        zero: await read(this.#nll.zero),
      },
      kl: { sae: await read(this.#kl.sae), zero: await read(this.#kl.zero) },
      x: await read(this.#x),
      xHat: await read(this.#xHat),
    };
  }

  /** Records what becomes of the stream. */
  #splice(rec: Recorder, kind: SpliceKind, resid: Tensor): void {
    const T = resid.nRows;
    const { places } = this.#work.tokens;
    if (kind === "zero") {
      replaceRows.run(rec, { source: this.#zero, places, x: resid }, {
        first_position: 0,
      });
      return;
    }
    const xHat = this.#xHat.rows(0, T);
    if (kind === "sae") {
      replaceRows.run(rec, { source: xHat, places, x: resid }, {
        first_position: FIRST_POSITION,
      });
      return;
    }
    const [x, rows] = [this.#x.rows(0, T), this.#tokens.rows(0, T)];
    gatherRows.run(rec, { x: resid, rows, y: x });
    this.#encoder.encode(rec, x, (acts, window) => {
      decodeWindow(rec, this.#sae, acts, xHat, window);
    });
  }

  /** Records logits, likelihoods and divergences of tokens [start, end). */
  #score(start: number, end: number): void {
    const [own, other] = this.#logits.map((tensor) =>
      tensor.rows(0, end - start)
    ) as [Tensor, Tensor];
    const targets = this.#targets.rows(start, end);
    this.#model.gpu.record("compare predictions", (rec) => {
      for (const kind of KINDS) {
        const logits = kind === "model" ? own : other;
        const normed = this.#normed[kind].rows(start, end);
        this.#model.logits(rec, normed, logits);
        const nll = this.#nll[kind].rows(start, end);
        crossEntropy.run(rec, { logits, targets, nll });
        if (kind === "model") continue;
        klDivergence.run(rec, {
          logits_p: own,
          logits_q: other,
          kl: this.#kl[kind].rows(start, end),
        });
      }
    });
  }

  /** Frees the memory; model and SAE stay. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Each token's successor; `vocab` after the last of a sequence. */
function successors(
  sequences: readonly ArrayLike<number>[],
  vocab: number,
): Uint32Array<ArrayBuffer> {
  return Uint32Array.from(
    sequences.flatMap((ids) => [...Array.from(ids).slice(1), vocab]),
  );
}
