/**
 * Parts of a product that are made one after the other: windows of B as bindings hold them, or less where a part of B is
 * transposed into memory for the moment, and the rows of A that transposes cannot take.
 * @module
 */
import type { Gpu, RowWindow } from "../gpu/mod.ts";
import type { MatmulCall } from "./matmul.ts";
import {
  isWeights,
  type MatmulShape,
  resolveVariant,
} from "./matmul_choice.ts";

/** Bytes of a model's weights that are transposed at once. */
const TURNED_BYTES = 2 ** 26;

/**
 * The rows of a window in pieces of about the same size, none of which takes more than {@link TURNED_BYTES} when it is
 * transposed; they start where bindings may.
 */
export function* turnedPieces(
  { tensor, start }: RowWindow,
  mostBytes = TURNED_BYTES,
): Generator<RowWindow> {
  const { nRows, byteLength } = tensor;
  const nPieces = Math.ceil(byteLength / mostBytes);
  const most = 64 * Math.ceil(nRows / nPieces / 64);
  for (let first = 0; first < nRows; first += most) {
    const end = Math.min(first + most, nRows);
    const piece = nPieces === 1 ? tensor : tensor.rows(first, end);
    yield { tensor: piece, start: start + first, end: start + end };
  }
}

/**
 * A product with a model's weights whose rows are no multiple of 4, as two of which the first can transpose them;
 * undefined where that would not help.
 */
export function splitRows(
  gpu: Gpu,
  call: MatmulCall,
  { M, K }: Pick<MatmulShape, "M" | "K">,
): [MatmulCall, MatmulCall] | undefined {
  const { layout, A, B, C, variant, epilogue } = call;
  const rest = M % 4;
  const even = M - rest;
  const types = { layout, aType: A.dtype, bType: B.dtype };
  // A result of other rows is for the kernel to refuse.
  const isWhole = rest === 0 || even === 0 || C.nRows !== M;
  if (isWhole || variant || epilogue || !isWeights(types)) return undefined;
  const N = Math.min(B.nRows, B.rowsPerBlock);
  const { turns } = resolveVariant(gpu, { ...types, M: even, N, K });
  // Rows start where bindings may.
  const isAligned = [A, C].every(({ rowBytes }) => even * rowBytes % 256 === 0);
  if (!turns || !isAligned) return undefined;
  return [
    { ...call, A: A.rows(0, even), C: C.rows(0, even) },
    { ...call, A: A.rows(even, M), C: C.rows(even, M) },
  ];
}
