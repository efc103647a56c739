import {
  BLOCK,
  defineKernel,
  type Dtype,
  grid,
  type QuantizedDtype,
  type Recorder,
  type Tensor,
} from "../gpu/mod.ts";
import q4 from "./quantize_q4.wgsl" with { type: "text" };
import q8 from "./quantize_q8.wgsl" with { type: "text" };
import { unpackers } from "./unpack.ts";

/** The kernels of one quantized type, by the type of their source. */
function quantizers(to: QuantizedDtype, wgsl: string) {
  return unpackers((dtype, unpack) =>
    defineKernel({
      name: `quantize_${to}`,
      wgsl,
      helpers: [unpack],
      bindings: {
        source: { access: "read", dtype, shape: ["source_rows", "K"] },
        levels: { access: "read_write", dtype: to, shape: ["rows", "K"] },
        not_finite: { access: "read_write", dtype: "u32", shape: [1] },
      },
      uniforms: {
        n: "u32",
        K: "u32",
        source_row: "u32",
        target_row: "u32",
        part: "u32",
      },
      workgroups: ({ n, K }) => grid(Math.ceil(n * pairsOf(K) / 64)),
    })
  );
}

/** Pairs of blocks in a row; the last may have one. */
function pairsOf(K: number): number {
  return Math.ceil(Math.ceil(K / BLOCK) / 2);
}

const kernels: Readonly<
  Record<QuantizedDtype, ReturnType<typeof quantizers>>
> = { q8: quantizers("q8", q8), q4: quantizers("q4", q4) };

/** Rows to quantize. */
export interface QuantizeCall {
  /** f32, bf16 or f16 `[n, K]` */
  readonly source: Tensor;
  /** q8 or q4 `[rows, K]`; may span several buffers. */
  readonly target: Tensor;
  /** Row of the target that the first row of the source becomes; 0 when absent. */
  readonly row?: number;
  /** u32 `[1]`: becomes the least `part` of which a weight is NaN or infinite. Such a block is NaN as a whole. */
  readonly notFinite: Tensor;
  /** What these rows are called in `notFinite`; 0 when absent. */
  readonly part?: number;
}

/**
 * Rounds rows to blocks of integers with a scale; see {@link QuantizedDtype} for how they lie in memory.
 *
 * q8: scale = max|w| / 127. q4: the weight of largest magnitude divided by −6.5, −7, … or −10, whichever leaves the least
 * squared error: levels are not symmetric, and the largest weight is worth the eighth.
 * @throws {TypeError} If the target is of no quantized type, or the source no float.
 * @throws {RangeError} If rows do not fit.
 */
export function quantize(rec: Recorder, call: QuantizeCall): void {
  const { source, target, row = 0, notFinite, part = 0 } = call;
  const kernel = kernelOf(target.dtype)(source.dtype);
  if (row < 0 || row + source.nRows > target.nRows) {
    throw new RangeError(
      `Cannot quantize ${source} into row ${row} of ${target}: out of range`,
    );
  }
  for (const { tensor, start, end } of target.windows()) {
    const [first, last] = [
      Math.max(row, start),
      Math.min(row + source.nRows, end),
    ];
    if (first >= last) continue;
    kernel.run(rec, { source, levels: tensor, not_finite: notFinite }, {
      n: last - first,
      source_row: first - row,
      target_row: first - start,
      part,
    });
  }
}

function kernelOf(dtype: Dtype): ReturnType<typeof quantizers> {
  if (dtype === "q8" || dtype === "q4") return kernels[dtype];
  throw new TypeError(`Cannot quantize to ${dtype}: expected q8 or q4`);
}
