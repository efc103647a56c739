import assert from "node:assert/strict";
import { bf16ToF32, f16ToF32, f32ToBf16 } from "../../core/dtype.ts";

const ALL_BITS = Uint16Array.from({ length: 65_536 }, (_, i) => i);

Deno.test("f32ToBf16() gives back every bfloat16 unchanged", () => {
  const back = f32ToBf16(bf16ToF32(ALL_BITS));
  for (const bits of ALL_BITS) {
    const isNaN = (bits & 0x7fff) > 0x7f80;
    // A NaN may come back quiet: bit 6 of its payload set.
    assert.equal(back[bits]! | (isNaN ? 0x40 : 0), isNaN ? bits | 0x40 : bits);
  }
});

Deno.test("f32ToBf16() rounds to nearest, ties to even", () => {
  const words: [number, number][] = [
    [0x3f800000, 0x3f80], // 1
    [0x3f808000, 0x3f80], // tie, even below
    [0x3f808001, 0x3f81], // just above the tie
    [0x3f818000, 0x3f82], // tie, even above
    [0x3f817fff, 0x3f81], // just below the tie
    [0x7f7fffff, 0x7f80], // the largest f32 becomes infinite
    [0xff800000, 0xff80], // -infinity
    [0x80000001, 0x8000], // smallest denormal becomes -0
    [0x7f800001, 0x7fc0], // NaN whose payload would be rounded away
    [0xffffffff, 0xffff], // NaN that rounding would carry over
  ];
  const f32 = new Float32Array(Uint32Array.from(words, ([w]) => w).buffer);
  assert.deepEqual([...f32ToBf16(f32)], words.map(([, bits]) => bits));
});

Deno.test("f32ToBf16() reads a view that starts inside its buffer", () => {
  const values = Float32Array.of(9, 1, -2);
  assert.deepEqual([...f32ToBf16(values.subarray(1))], [0x3f80, 0xc000]);
});

Deno.test("f16ToF32() is exact for all bits, infinities and NaN", () => {
  const values = f16ToF32(ALL_BITS);
  for (const bits of ALL_BITS) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const sign = bits >> 15 ? -1 : 1;
    const want = exponent === 31
      ? (fraction ? NaN : sign * Infinity)
      : exponent === 0
      ? sign * fraction * 2 ** -24
      : sign * (1024 + fraction) * 2 ** (exponent - 25);
    assert.ok(Object.is(values[bits], want), `${bits}: ${values[bits]}`);
  }
  assert.deepEqual([...f16ToF32(ALL_BITS.subarray(0x3c00, 0x3c01))], [1]);
});
