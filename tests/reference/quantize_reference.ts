/**
 * Quantized rows in float64, from the docstring of `QuantizedDtype` and `quantize`.
 * @module
 */
import { f32ToBf16 } from "../../core/dtype.ts";
import { BLOCK, bytesPerRow, type QuantizedDtype } from "../../gpu/mod.ts";

/** Rows as they lie in memory, and what they mean. */
export interface QuantizedRows {
  /** `[rows, bytesPerRow]` */
  readonly stored: Uint8Array<ArrayBuffer>;
  /** `[rows, K]` */
  readonly rounded: Float32Array<ArrayBuffer>;
}

/** One block: its scale, and integers in the order of its elements. */
export interface QuantizedBlock {
  readonly scale: number;
  readonly levels: readonly number[];
}

const PER_BYTE = { q8: 1, q4: 2 } as const;
const RANGE = { q8: [-127, 127], q4: [-8, 7] } as const;

const bf16 = (x: number): number =>
  new Float32Array(
    new Uint32Array([f32ToBf16(Float32Array.of(x))[0]! << 16]).buffer,
  )[0]!;

/** x to the nearest integer, ties to the even one. */
function roundEven(x: number): number {
  const down = Math.floor(x);
  if (x - down !== 0.5) return Math.round(x);
  return down % 2 === 0 ? down : down + 1;
}

/** Σ (w − scale · level)² of a block. */
export function squaredError(
  w: readonly number[],
  { scale, levels }: QuantizedBlock,
): number {
  return w.reduce((sum, x, k) => sum + (x - scale * levels[k]!) ** 2, 0);
}

function roundBlock(
  type: QuantizedDtype,
  w: readonly number[],
  scale: number,
): QuantizedBlock {
  const [low, high] = RANGE[type];
  const levels = w.map((x) =>
    Math.min(high, Math.max(low, roundEven(x / scale)))
  );
  return { scale, levels };
}

/** The block that a quantizer should make of finite weights. */
export function blockReference(
  type: QuantizedDtype,
  w: readonly number[],
): QuantizedBlock {
  const extreme = w.reduce((a, b) => Math.abs(b) > Math.abs(a) ? b : a, 0);
  if (Math.abs(extreme) < 2 ** -80) {
    return { scale: 0, levels: w.map(() => 0) };
  }
  if (type === "q8") return roundBlock(type, w, bf16(Math.abs(extreme) / 127));
  const candidates = [6.5, 7, 7.5, 8, 8.5, 9, 9.5, 10].map((d) =>
    roundBlock(type, w, bf16(extreme / -d))
  );
  return candidates.reduce((best, candidate) =>
    squaredError(w, candidate) < squaredError(w, best) ? candidate : best
  );
}

/** Rows of K elements as a quantizer should make them of finite weights. */
export function quantizeReference(
  type: QuantizedDtype,
  values: ArrayLike<number>,
  K: number,
): QuantizedRows {
  const nRows = values.length / K;
  const rowBytes = bytesPerRow(type, [nRows, K]);
  const stored = new Uint8Array(nRows * rowBytes);
  const rounded = new Float32Array(values.length);
  const levelBytes = Math.ceil(K / BLOCK) * BLOCK / PER_BYTE[type];
  const view = new DataView(stored.buffer);
  for (let row = 0; row < nRows; row++) {
    for (let k0 = 0; k0 < K; k0 += BLOCK) {
      const n = Math.min(BLOCK, K - k0);
      const w = Array.from({ length: n }, (_, i) => values[row * K + k0 + i]!);
      const { scale, levels } = blockReference(type, w);
      for (const [i, level] of levels.entries()) {
        rounded[row * K + k0 + i] = scale * level;
        const at = row * rowBytes + Math.floor((k0 + i) / PER_BYTE[type]);
        if (type === "q8") view.setInt8(at, level);
        else stored[at]! |= (level & 15) << (4 * ((k0 + i) % 2));
      }
      view.setUint16(
        row * rowBytes + levelBytes + 2 * (k0 / BLOCK),
        f32ToBf16(Float32Array.of(scale))[0]!,
        true,
      );
    }
  }
  return { stored, rounded };
}

/** The blocks of rows as they lie in memory. */
export function readBlocks(
  type: QuantizedDtype,
  stored: Uint8Array<ArrayBuffer>,
  nRows: number,
  K: number,
): QuantizedBlock[][] {
  const rowBytes = bytesPerRow(type, [nRows, K]);
  const levelBytes = Math.ceil(K / BLOCK) * BLOCK / PER_BYTE[type];
  const view = new DataView(stored.buffer);
  const level = (row: number, k: number): number => {
    const byte = view.getInt8(row * rowBytes + Math.floor(k / PER_BYTE[type]));
    if (type === "q8") return byte;
    return k % 2 === 0 ? (byte << 28) >> 28 : byte >> 4;
  };
  return Array.from(
    { length: nRows },
    (_, row) =>
      Array.from({ length: Math.ceil(K / BLOCK) }, (_, block) => {
        const at = row * rowBytes + levelBytes + 2 * block;
        const word = new Uint32Array([view.getUint16(at, true) << 16]);
        const scale = new Float32Array(word.buffer)[0]!;
        const n = Math.min(BLOCK, K - block * BLOCK);
        const levels = Array.from(
          { length: n },
          (_, i) => level(row, block * BLOCK + i),
        );
        return { scale, levels };
      }),
  );
}
