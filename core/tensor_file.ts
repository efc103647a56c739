/**
 * Files of named tensors, whatever their format: safetensors, PyTorch, NumPy. Tensors are read by ranges of their
 * bytes, so that no file lies in memory whole.
 * @module
 */
import type { StoredDtype } from "./safetensors_header.ts";
import { nearest } from "./suggest.ts";

/** What a file tells of one tensor. */
export interface StoredTensor {
  /** The tensor's name in the file. */
  readonly name: string;
  /** Element type, as safetensors spells it. */
  readonly dtype: StoredDtype;
  /** Sizes, outermost first; empty for a scalar. */
  readonly shape: readonly number[];
  /** Whether the bytes are those of the transpose, in which the first index runs fastest; of matrices only. */
  readonly isTransposed?: boolean;
}

/** An open file of tensors. What it tells of them is in memory, their values are not. */
export interface TensorFile {
  /** What errors call it. */
  readonly name: string;
  /** All tensors by name. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /**
   * What the file tells of one tensor.
   * @throws {RangeError} If there is none of this name: lists the nearest.
   */
  info(name: string): StoredTensor;
  /**
   * The bytes [start, end) of a tensor, counted from its first; little-endian, without gaps.
   * @throws {RangeError} If there is no such tensor, or the range is not inside it.
   */
  read(
    name: string,
    start: number,
    end: number,
  ): Promise<Uint8Array<ArrayBuffer>>;
}

/** The error of a file or checkpoint that lacks a tensor: lists the nearest names. */
export function missingTensor(
  file: string,
  name: string,
  names: Iterable<string>,
): RangeError {
  const near = nearest(name, names, 3).map((other) => `"${other}"`);
  return new RangeError(
    `Cannot read "${file}": no tensor "${name}"${
      near.length > 0 ? `: the nearest are ${near.join(", ")}` : ""
    }: check that the files of this folder belong together`,
  );
}
