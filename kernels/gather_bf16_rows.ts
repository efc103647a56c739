import { defineKernel, grid, type Recorder, type Tensor } from "../gpu/mod.ts";
import wgsl from "./gather_bf16_rows.wgsl" with { type: "text" };

const kernel = defineKernel({
  name: "gather_bf16_rows",
  wgsl,
  bindings: {
    rows: { access: "read", dtype: "bf16", shape: ["n", "d_model"] },
    index: { access: "read", dtype: "u32", shape: ["B"] },
    x: { access: "read_write", dtype: "f32", shape: ["B", "d_model"] },
  },
  uniforms: {
    n: "u32",
    d_model: "u32",
    B: "u32",
    first_row: "u32",
    scale: "f32",
  },
  workgroups: ({ B, d_model }) => grid(Math.ceil(B * d_model / 128)),
});

/**
 * Picks packed rows and scales them: x[b] = scale · rows[index[b]], the rows taken
 * window by window. Indices past the last row leave their rows of x as they were.
 * @throws {RangeError} If d_model is odd: rows would start within a word.
 */
export function gatherBf16Rows(
  rec: Recorder,
  tensors: { rows: Tensor; index: Tensor; x: Tensor },
  { scale }: { readonly scale: number },
): void {
  const { rows, index, x } = tensors;
  if (rows.rowBytes % 4 !== 0) {
    throw new RangeError(
      `Cannot gather rows of ${rows}: expected an even number of bf16 values in each`,
    );
  }
  for (const { tensor, start } of rows.windows()) {
    kernel.run(rec, { rows: tensor, index, x }, { first_row: start, scale });
  }
}
