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

/** Bytes of a model's weights that are transposed at once: on software drivers as many as the processor's caches hold. */
const TURNED_BYTES = { software: 2 ** 22, card: 2 ** 26 };
/** Rows of B that make columns for all lanes of a workgroup. */
const PIECE_ROWS = 128;

/**
 * The rows of a window in pieces of about the same size, whose transposes take few bytes at once; they start where
 * bindings may.
 */
export function* turnedPieces(
  { isSoftware }: Pick<Gpu, "isSoftware">,
  { tensor, start }: RowWindow,
): Generator<RowWindow> {
  const { nRows, byteLength } = tensor;
  const mostBytes = TURNED_BYTES[isSoftware ? "software" : "card"];
  const nPieces = Math.ceil(byteLength / mostBytes);
  const most = PIECE_ROWS * Math.ceil(nRows / nPieces / PIECE_ROWS);
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
