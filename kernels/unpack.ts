import type { Dtype } from "../gpu/mod.ts";
import bf16 from "./unpack_bf16.wgsl" with { type: "text" };
import f16 from "./unpack_f16.wgsl" with { type: "text" };
import f32 from "./unpack_f32.wgsl" with { type: "text" };

const HELPERS = { f32, bf16, f16 } as const;

/** Float types that weights may have in memory. */
export type WeightDtype = keyof typeof HELPERS;

/**
 * One kernel for each float type: the same shader with another `unpack`.
 * @throws {TypeError} From the returned function, if the type is no float type.
 */
export function unpackers<K>(
  define: (dtype: WeightDtype, unpack: string) => K,
): (dtype: Dtype) => K {
  const kernels = {
    f32: define("f32", HELPERS.f32),
    bf16: define("bf16", HELPERS.bf16),
    f16: define("f16", HELPERS.f16),
  };
  return (dtype) => {
    if (dtype in kernels) return kernels[dtype as WeightDtype];
    throw new TypeError(`Cannot unpack ${dtype}: expected f32, bf16 or f16`);
  };
}
