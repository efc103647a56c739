import type { Recorder, Tensor } from "../gpu/mod.ts";
import { replaceRows } from "../kernels/replace_rows.ts";
import { decodeWindow, type Sae } from "./sae.ts";
import { SaeEncoder } from "./sae_encoder.ts";

/**
 * Tokens at smaller positions keep their stream: collecting leaves the first one out, as its norm is many times that of
 * the others.
 */
export const FIRST_POSITION = 1;

/** Puts an SAE's reconstruction in place of what it reads. */
export class SaeSplice implements Disposable {
  readonly #sae: Sae;
  readonly #xHat: Tensor; // f32 [maxTokens, d_model]
  readonly #encoder: SaeEncoder;
  readonly #owned: DisposableStack;

  /** Takes memory for passes of up to `maxTokens` tokens. */
  constructor(sae: Sae, maxTokens: number) {
    using owned = new DisposableStack();
    const shape = [maxTokens, sae.d_model];
    this.#sae = sae;
    this.#xHat = owned.use(sae.gpu.tensor("x_hat", "f32", shape));
    this.#encoder = owned.use(new SaeEncoder(sae, maxTokens));
    this.#owned = owned.move();
  }

  /**
   * Records x = decode(encode(x)) for the tokens that do not stand first.
   * @param places u32 `[T, 2]`: the position of each token is the second word.
   * @param resid f32 `[T, d_model]`
   */
  run(rec: Recorder, places: Tensor, resid: Tensor): void {
    const xHat = this.#xHat.rows(0, resid.nRows);
    this.#encoder.encode(rec, resid, (acts, window) => {
      decodeWindow(rec, this.#sae, acts, xHat, window);
    });
    replaceRows.run(rec, { source: xHat, places, x: resid }, {
      first_position: FIRST_POSITION,
    });
  }

  /** Frees the memory; the SAE stays. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
