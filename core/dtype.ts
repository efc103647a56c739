/**
 * The 16-bit float types of checkpoints, converted on the host. Weights stay
 * packed on the GPU; these serve what is read as numbers: SAEs, residuals, tests.
 * @module
 */

/** Widens bfloat16 bits to f32, exactly. */
export function bf16ToF32(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i]! << 16;
  return new Float32Array(words.buffer);
}

/**
 * Rounds f32 to bfloat16 bits: to nearest, ties to even, as PyTorch does. NaN
 * stays NaN; what is too large becomes infinite.
 */
export function f32ToBf16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(
    values.buffer,
    values.byteOffset,
    values.length,
  );
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    // Rounding would carry a NaN with a short payload into infinity.
    const isNaN = (word & 0x7fffffff) > 0x7f800000;
    const even = (word >>> 16) & 1;
    bits[i] = isNaN ? (word >>> 16) | 0x40 : (word + 0x7fff + even) >>> 16;
  }
  return bits;
}

/** Widens IEEE half-precision bits to f32, exactly. */
export function f16ToF32(bits: Uint16Array): Float32Array<ArrayBuffer> {
  return new Float32Array(
    new Float16Array(bits.buffer, bits.byteOffset, bits.length),
  );
}
