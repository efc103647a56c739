/**
 * Rows of a model that are held out of training: those of the first documents, on the host.
 * @module
 */
import type { Gpu } from "../gpu/mod.ts";
import type { ModelPasses } from "./model_passes.ts";

interface HeldPass {
  /** Bits of bf16 `[n, d_model]`. */
  readonly rows: Uint16Array<ArrayBuffer>;
  /** L2 norms, f32 `[n]`. */
  readonly norms: Float32Array;
}

/** Rows of the first passes. */
export class HeldRows {
  readonly #d_model: number;
  readonly #held: HeldPass[] = [];

  private constructor(d_model: number) {
    this.#d_model = d_model;
  }

  /**
   * Runs passes until there are n rows; what follows those passes is left to train on.
   * @throws {RangeError} If the text ends before.
   */
  static async take(
    gpu: Gpu,
    passes: ModelPasses,
    { n, d_model, name }: {
      readonly n: number;
      readonly d_model: number;
      readonly name: string;
    },
  ): Promise<HeldRows> {
    const held = new HeldRows(d_model);
    for (let left = n; left > 0;) {
      const pass = await passes.next();
      if (pass.epoch > 0) {
        throw new RangeError(
          `Cannot train on "${name}": expected more than the ${n} vectors that are held out: got ${
            n - left
          }: take more text, or hold out fewer`,
        );
      }
      const norms = await pass.norms;
      const nRows = Math.min(pass.n, left);
      const words = await gpu.readInts(passes.packed.rows(0, nRows));
      const all = Uint32Array.from({ length: nRows }, (_, row) => row);
      held.#held.push({
        rows: unpadded(words, d_model, all),
        norms: norms.subarray(0, nRows),
      });
      left -= nRows;
    }
    return held;
  }

  /** Those that are kept: bits of bf16 `[n, d_model]`, a pass at a time. */
  *kept(
    keptOf: (norms: Float32Array) => Uint32Array,
  ): Generator<Uint16Array<ArrayBuffer>> {
    const d_model = this.#d_model;
    for (const { rows, norms } of this.#held) {
      const kept = keptOf(norms);
      if (kept.length > 0) yield pickRows(rows, d_model, kept);
    }
  }
}

/** Rows of bf16 in whole words, without the others and without what pads them: bits `[n, d_model]`. */
export function unpadded(
  words: Uint32Array<ArrayBuffer>,
  d_model: number,
  rows: Uint32Array,
): Uint16Array<ArrayBuffer> {
  const bits = new Uint16Array(words.buffer);
  return pickRows(bits, d_model, rows, 2 * Math.ceil(d_model / 2));
}

function pickRows(
  bits: Uint16Array,
  d_model: number,
  rows: Uint32Array,
  stride: number = d_model,
): Uint16Array<ArrayBuffer> {
  const picked = new Uint16Array(rows.length * d_model);
  for (const [i, row] of rows.entries()) {
    const start = row * stride;
    picked.set(bits.subarray(start, start + d_model), i * d_model);
  }
  return picked;
}
