/**
 * WGSL of the matrix product family. Accumulators are named variables, since an
 * array of them costs a third of the speed, so the text is generated from the
 * tile's shape: the one family that is not a `.wgsl` file.
 */
import { isQuantized } from "../gpu/mod.ts";
import type { MatmulVariant } from "./matmul.ts";
import {
  quantizedDotBody,
  quantizedHelpers,
  quantizedRegistersBody,
} from "./matmul_quantized.ts";
import { registersBody } from "./matmul_registers.ts";
import { lines } from "./matmul_text.ts";
import { dotBody, workgroupBody } from "./matmul_workgroup.ts";

/** The shader of one variant. */
export function matmulWgsl(variant: MatmulVariant): string {
  const blocks = isQuantized(variant.bType) && variant.vec;
  const body = {
    registers: blocks ? quantizedRegistersBody : registersBody,
    workgroup: workgroupBody,
    dot: blocks ? quantizedDotBody : dotBody,
  }[variant.kind](variant);
  const { epilogue } = variant;
  return [
    header(variant),
    body,
    epilogue?.wgsl ?? "",
    epilogue?.tiles ?? "",
    ...quantizedHelpers(variant),
  ].join("\n");
}

function header(
  { layout, kind, aType, bType, vec, vecC, epilogue }: MatmulVariant,
): string {
  const [a, b] = layout.split(",");
  const isBlocks = isQuantized(bType);
  const word = (type: string) => (type === "f32" ? "f32" : "u32");
  const array = (type: string) => vec ? `vec4<${word(type)}>` : word(type);
  const extra = Object.keys(epilogue?.bindings ?? {});
  const { elements = [], columns = [] } = epilogue ?? {};
  const floats = vecC ? "vec4<f32>" : "f32";
  const element = (name: string) =>
    [...elements, ...columns].includes(name)
      ? floats
      : epilogue?.bindings[name]?.dtype === "u32"
      ? "u32"
      : "f32";
  const after = extra.length + 3;
  return lines([
    `// C[m, c_col + n] = epilogue(sum_k A[m, k] * B[k, n]);  A is stored ${a} (${aType}), B ${b} (${bType}), C [M, ldc].`,
    `@group(0) @binding(0) var<storage, read> A: array<${array(aType)}>;`,
    `@group(0) @binding(1) var<storage, read> B: array<${
      isBlocks && kind === "workgroup" ? "u32" : array(bType)
    }>;`,
    `@group(0) @binding(2) var<storage, read_write> C: array<${floats}>;`,
    ...extra.map((name, i) =>
      `@group(0) @binding(${i + 3}) var<storage, read> ${name}: array<${
        element(name)
      }>;`
    ),
    ...(epilogue?.tiles
      ? [
        `@group(0) @binding(${after}) var<storage, read_write> tile_masks: array<u32>;`,
        `@group(0) @binding(${
          after + 1
        }) var<storage, read_write> tile_sums: array<f32>;`,
      ]
      : []),
    `struct Uniforms {`,
    `  M: u32, N: u32, K: u32, ldc: u32, c_col: u32,`,
    ...(epilogue?.tiles ? [`  tile0: u32,`] : []),
    ...(epilogue?.uniforms ?? []).map((name) => `  ${name}: f32,`),
    `}`,
    `@group(0) @binding(${
      after + (epilogue?.tiles ? 2 : 0)
    }) var<uniform> u: Uniforms;`,
  ]);
}
