import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_column_gradients.wgsl" with { type: "text" };
import xBf16 from "./x_bf16.wgsl" with { type: "text" };
import xF32 from "./x_f32.wgsl" with { type: "text" };

const define = <const T extends "f32" | "bf16">(dtype: T) =>
  defineKernel({
    name: "sae_column_gradients",
    wgsl,
    helpers: [dtype === "f32" ? xF32 : xBf16],
    bindings: {
      columns: { access: "read", dtype: "u32", shape: ["n_columns", 4] },
      runs: { access: "read", dtype: "u32", shape: ["window", 2] },
      blocks: { access: "read", dtype: "u32", shape: ["n_blocks"] },
      touched: { access: "read", dtype: "u32", shape: ["window"] },
      l1_coef: { access: "read", dtype: "f32", shape: ["window"] },
      err: { access: "read", dtype: "f32", shape: ["B", "d_model"] },
      x: { access: "read", dtype, shape: ["B", "d_model"] },
      W_dec: { access: "read", dtype: "f32", shape: ["window", "d_model"] },
      dW_dec: {
        access: "read_write",
        dtype: "f32",
        shape: ["window", "d_model"],
      },
      dW_enc: {
        access: "read_write",
        dtype: "f32",
        shape: ["window", "d_model"],
      },
    },
    overrides: ["LANES"],
    uniforms: {
      window: "u32",
      block0: "u32",
      d_model: "u32",
      mean: "f32",
      scale: "f32",
    },
    workgroups: ({ window, d_model, LANES }) =>
      grid(window * Math.ceil(d_model / (16 * LANES))),
  });

/** Gradients of the encoder's and decoder's rows of features that have entries. */
export const saeColumnGradients = define("f32");

/** {@link saeColumnGradients} for inputs that are packed bf16. */
export const saeColumnGradientsBf16 = define("bf16");
