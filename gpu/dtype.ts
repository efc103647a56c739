/** Types whose elements are stored one by one. The 16-bit float types are packed, two in one u32 (the lower half is the even element). */
export type ElementDtype = "f32" | "u32" | "i32" | "bf16" | "f16";

/**
 * Quantized types of matrices `[rows, K]`: 8 or 4 bits an element and a bf16 scale for each block of
 * {@link BLOCK} elements along a row, an element being its integer times its block's scale.
 *
 * A row is a run of u32 words, all little-endian in bits:
 * 1. integers in two's complement, 4 (q8) or 8 (q4) in a word, the element of lowest index in the lowest bits; the last
 *    block is filled up with zeros. q8 takes −127 to 127, q4 −8 to 7;
 * 2. scales, two in a word, that of the even block in the lower half; a scale that is NaN marks a block in which a
 *    weight was not finite, a scale of 0 a block of zeros;
 * 3. words up to a multiple of 16 bytes, which nothing reads.
 */
export type QuantizedDtype = "q8" | "q4";

/** Element types of tensors; values are unpacked in the shader. */
export type Dtype = ElementDtype | QuantizedDtype;

/** Elements that share a scale in quantized rows. */
export const BLOCK = 32;

/** Whether a type is one of those with a scale for each block. */
export function isQuantized(dtype: Dtype): dtype is QuantizedDtype {
  return dtype === "q8" || dtype === "q4";
}

/** Bytes that one element takes in memory. */
export function bytesPerElement(dtype: ElementDtype): 2 | 4 {
  return dtype === "bf16" || dtype === "f16" ? 2 : 4;
}

/**
 * Bytes of a row, that is of all dimensions but the first.
 * @throws {TypeError} If a quantized type is asked of what is no matrix.
 */
export function bytesPerRow(dtype: Dtype, shape: readonly number[]): number {
  const n = elementCount(shape.slice(1));
  if (!isQuantized(dtype)) return n * bytesPerElement(dtype);
  if (shape.length !== 2) {
    throw new TypeError(
      `Cannot quantize ${describeShape(dtype, shape)}: expected a matrix`,
    );
  }
  const nBlocks = Math.ceil(n / BLOCK);
  const integers = nBlocks * BLOCK * (dtype === "q8" ? 8 : 4) / 8;
  return integers + Math.ceil(2 * nBlocks / 16) * 16;
}

/**
 * Bytes of a tensor.
 * @throws {TypeError} As {@link bytesPerRow}.
 */
export function bytesOf(dtype: Dtype, shape: readonly number[]): number {
  return (shape[0] ?? 1) * bytesPerRow(dtype, shape);
}

/** Product of the sizes; 1 for a scalar's empty shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** `f32[8, 2048]`: how tensors are named in errors. */
export function describeShape(dtype: string, shape: readonly number[]): string {
  return `${dtype}[${shape.join(", ")}]`;
}
