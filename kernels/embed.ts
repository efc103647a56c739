import { defineKernel, grid, type Recorder, type Tensor } from "../gpu/mod.ts";
import wgsl from "./embed.wgsl" with { type: "text" };
import { unpackers } from "./unpack.ts";

const kernels = unpackers((dtype, unpack) =>
  defineKernel({
    name: "embed",
    wgsl,
    helpers: [unpack],
    bindings: {
      ids: { access: "read", dtype: "u32", shape: ["T"] },
      table: { access: "read", dtype, shape: ["rows", "d_model"] },
      resid: { access: "read_write", dtype: "f32", shape: ["T", "d_model"] },
    },
    uniforms: { T: "u32", d_model: "u32", rows: "u32", first_row: "u32" },
    workgroups: ({ T, d_model }) => grid(Math.ceil(T * d_model / 64)),
  })
);

/**
 * resid[t] = table[ids[t]], the table taken window by window. Ids past the
 * table's end leave their rows as they were: callers check ids first.
 */
export function embed(
  rec: Recorder,
  tensors: { ids: Tensor; table: Tensor; resid: Tensor },
): void {
  const { ids, table, resid } = tensors;
  for (const { tensor, start } of table.windows()) {
    kernels(table.dtype).run(rec, { ids, table: tensor, resid }, {
      first_row: start,
    });
  }
}
