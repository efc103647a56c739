import type { QuantizedDtype } from "../gpu/mod.ts";
import q4 from "./quantized_q4.wgsl" with { type: "text" };
import q8 from "./quantized_q8.wgsl" with { type: "text" };
import rows from "./quantized_rows.wgsl" with { type: "text" };

/** Whole WGSL files that a shader needs to find its way in quantized rows. */
export const QUANTIZED_ROWS: Readonly<
  Record<QuantizedDtype, readonly string[]>
> = { q8: [q8, rows], q4: [q4, rows] };
