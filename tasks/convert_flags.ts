/**
 * The flags of `convert`.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { SAE_TARGETS } from "../core/sae_write.ts";
import { GPU_FLAGS, SAE_FLAG } from "./cli.ts";

/** All flags of `convert`. */
export const CONVERT_FLAGS = {
  ...SAE_FLAG,
  to: {
    type: "string",
    choices: [...SAE_TARGETS, "gguf"],
    help:
      "layout to write; gguf is a control vector of one feature, for llama.cpp and repeng. Without it the SAE is only described",
  },
  out: { type: "string", help: "folder to write, or the .gguf file; new" },
  dtype: {
    default: "f32",
    choices: ["f32", "bf16"],
    help: "type of the weights written; bf16 rounds",
  },
  hook: {
    type: "string",
    help:
      "resid_post[l] or final_norm@l, where the files do not tell what the SAE was trained on",
  },
  layer: {
    type: "number",
    integer: true,
    min: 0,
    help: "block of an SAE whose files do not tell it",
  },
  model_name: {
    type: "string",
    help: "name of the model it was trained on, where the files do not tell",
  },
  feature: {
    type: "string",
    help: "of gguf: a feature by number or label; 758@5 adds it behind block 5",
  },
  strength: {
    type: "string",
    help:
      "of gguf: what is added to its activation, absolute (8) or in multiples of its maximum (2x)",
  },
  model_hint: {
    default: "olmo2",
    help: "of gguf: the model's architecture, which readers show",
  },
  check: {
    default: false,
    help:
      "measure it on --residuals; one that does not fit ends with code 1, and is not converted",
  },
  residuals: {
    type: "string",
    help: "folder that collect wrote, also s3://BUCKET/FOLDER, for --check",
  },
  vectors: {
    default: 16_384,
    integer: true,
    min: 1,
    help: "of --check: most vectors",
  },
  ...GPU_FLAGS,
} as const satisfies FlagTable;

/** Values of {@link CONVERT_FLAGS}. */
export type ConvertFlags = ConfigOf<typeof CONVERT_FLAGS>;
