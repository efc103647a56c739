/**
 * Element types of tensors. The 16-bit float types are stored packed, two in
 * one u32 (the lower half is the even element), and unpacked in the shader.
 */
export type Dtype = "f32" | "u32" | "i32" | "bf16" | "f16";

/** Bytes that one element takes in memory. */
export function bytesPerElement(dtype: Dtype): 2 | 4 {
  return dtype === "bf16" || dtype === "f16" ? 2 : 4;
}

/** Product of the sizes; 1 for a scalar's empty shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** `f32[8, 2048]`: how tensors are named in errors. */
export function describeShape(dtype: string, shape: readonly number[]): string {
  return `${dtype}[${shape.join(", ")}]`;
}
