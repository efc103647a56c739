import {
  defineKernel,
  type Dtype,
  grid,
  type Recorder,
  type Tensor,
} from "../gpu/mod.ts";
import wgsl from "./embed.wgsl" with { type: "text" };
import wgslQ8 from "./embed_q8.wgsl" with { type: "text" };
import { QUANTIZED_ROWS } from "./quantized.ts";
import { unpackers } from "./unpack.ts";

const kernels = unpackers((dtype, unpack) =>
  defineEmbed("embed", wgsl, dtype, [unpack])
);
const kernelQ8 = defineEmbed("embed_q8", wgslQ8, "q8", QUANTIZED_ROWS.q8);

function defineEmbed<const D extends Dtype>(
  name: string,
  wgsl: string,
  dtype: D,
  helpers: readonly string[],
) {
  return defineKernel({
    name,
    wgsl,
    helpers,
    bindings: {
      ids: { access: "read", dtype: "u32", shape: ["T"] },
      table: { access: "read", dtype, shape: ["rows", "d_model"] },
      resid: { access: "read_write", dtype: "f32", shape: ["T", "d_model"] },
    },
    uniforms: { T: "u32", d_model: "u32", rows: "u32", first_row: "u32" },
    workgroups: ({ T, d_model }) => grid(Math.ceil(T * d_model / 64)),
  });
}

/**
 * resid[t] = table[ids[t]], the table f32, bf16, f16 or q8, taken window by window. Ids past the
 * table's end leave their rows as they were: callers check ids first.
 */
export function embed(
  rec: Recorder,
  tensors: { ids: Tensor; table: Tensor; resid: Tensor },
): void {
  const { ids, table, resid } = tensors;
  for (const { tensor, start } of table.windows()) {
    const kernel = table.dtype === "q8" ? kernelQ8 : kernels(table.dtype);
    kernel.run(rec, { ids, table: tensor, resid }, {
      first_row: start,
    });
  }
}
