/**
 * Comparisons of numeric tensors for tests. A value that is not finite never
 * passes, on either side.
 * @module
 */
import { AssertionError } from "node:assert/strict";

/** What {@link assertClose} allows and what it calls the tensor. */
export interface CloseOptions {
  /** Largest allowed |got − want|, added to the relative part; 0 when absent. */
  readonly atol?: number;
  /** Largest allowed |got − want| as a share of |want|; 0 when absent. */
  readonly rtol?: number;
  /** Name of the tensor, for the message. */
  readonly label: string;
  /** Row-major shape, so that the message gives `[i, j]`; one axis when absent. */
  readonly shape?: readonly number[];
}

/**
 * Asserts |got − want| ≤ atol + rtol · |want| for every element.
 * @throws {AssertionError} Names the tensor, the worst element with both
 * values, how many differ, and the first that does.
 * @throws {TypeError} If the lengths differ from each other or from the shape.
 * @throws {RangeError} If there is nothing to compare or a tolerance is not a finite number ≥ 0.
 */
export function assertClose(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  options: CloseOptions,
): void {
  const { atol = 0, rtol = 0, label, shape = [want.length] } = options;
  checkComparable(got, want, label, shape);
  for (const [name, value] of Object.entries({ atol, rtol })) {
    if (!(value >= 0 && value < Infinity)) {
      throw new RangeError(
        `Cannot compare ${label}: expected ${name} to be a finite number ≥ 0: got ${value}`,
      );
    }
  }
  let nDiffer = 0;
  let first = 0;
  let worst = 0;
  let worstExcess = -1;
  for (let i = 0; i < want.length; i++) {
    const excess = excessOf(got[i]!, want[i]!, atol, rtol);
    if (excess <= 0) continue;
    if (nDiffer++ === 0) first = i;
    if (excess > worstExcess) [worst, worstExcess] = [i, excess];
  }
  if (nDiffer === 0) return;
  const limit = atol + rtol * Math.abs(want[worst]!);
  throw new AssertionError({
    message: `${label}${indexOf(worst, shape)}: ${
      describePair(got[worst]!, want[worst]!)
    } > ${
      describeLimit(limit, atol, rtol)
    }); ${nDiffer} of ${want.length} differ, first at ${indexOf(first, shape)}`,
  });
}

/**
 * ‖got − want‖₂ / ‖want‖₂ in float64. Infinity if any value is not finite,
 * or if `want` is all zero and `got` is not.
 * @throws {TypeError} If the lengths differ.
 * @throws {RangeError} If there is nothing to compare.
 */
export function relativeError(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
): number {
  checkComparable(got, want, "tensor", [want.length]);
  let errorSquared = 0;
  let wantSquared = 0;
  for (let i = 0; i < want.length; i++) {
    errorSquared += (got[i]! - want[i]!) ** 2;
    wantSquared += want[i]! ** 2;
  }
  if (!Number.isFinite(errorSquared + wantSquared)) return Infinity;
  return errorSquared === 0 ? 0 : Math.sqrt(errorSquared / wantSquared);
}

/**
 * Asserts {@link relativeError} ≤ limit.
 * @throws {AssertionError} Names the tensor, the error, the limit and the element that is furthest off.
 * @throws {TypeError} If the lengths differ.
 * @throws {RangeError} If there is nothing to compare or the limit is not a finite number ≥ 0.
 */
export function assertRelativeError(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  limit: number,
  label: string,
): void {
  checkComparable(got, want, label, [want.length]);
  if (!(limit >= 0 && limit < Infinity)) {
    throw new RangeError(
      `Cannot compare ${label}: expected the limit to be a finite number ≥ 0: got ${limit}`,
    );
  }
  const error = relativeError(got, want);
  if (error <= limit) return;
  let worst = 0;
  let worstExcess = -1;
  for (let i = 0; i < want.length; i++) {
    const excess = excessOf(got[i]!, want[i]!, 0, 0);
    if (excess > worstExcess) [worst, worstExcess] = [i, excess];
  }
  throw new AssertionError({
    message: `${label}: relative error ${
      error.toExponential(1)
    } > ${limit}; worst at [${worst}] of ${want.length}: ${
      describePair(got[worst]!, want[worst]!)
    })`,
  });
}

/**
 * `n` values from a normal distribution with mean 0 and standard deviation
 * `scale`; the same for the same seed.
 */
export function randomNormal(
  n: number,
  seed: number,
  scale: number = 1,
): Float32Array<ArrayBuffer> {
  const uniform = mulberry32(seed);
  return Float32Array.from({ length: n }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform())); // 1 − u is never 0
    return scale * radius * Math.cos(2 * Math.PI * uniform());
  });
}

/** `n` NaNs: the content of a tensor that a kernel must overwrite whole. */
export function poison(n: number): Float32Array<ArrayBuffer> {
  return new Float32Array(n).fill(NaN);
}

/** Uniform in [0, 1). Source: Tommy Ettinger, mulberry32 (public domain). */
function mulberry32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function checkComparable(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  label: string,
  shape: readonly number[],
): void {
  const nElements = shape.reduce((product, size) => product * size, 1);
  if (got.length !== want.length || want.length !== nElements) {
    throw new TypeError(
      `Cannot compare ${label}: expected ${want.length} values of shape [${
        shape.join(", ")
      }]: got ${got.length}`,
    );
  }
  if (want.length === 0) {
    throw new RangeError(
      `Cannot compare ${label}: expected at least one value: got none`,
    );
  }
}

/** How far the pair is beyond its tolerance; ≤ 0 is close, not finite is furthest. */
function excessOf(
  got: number,
  want: number,
  atol: number,
  rtol: number,
): number {
  const difference = Math.abs(got - want);
  if (!Number.isFinite(difference)) return Infinity;
  return difference - (atol + rtol * Math.abs(want));
}

function indexOf(flat: number, shape: readonly number[]): string {
  const index: number[] = [];
  for (const size of shape.toReversed()) {
    index.unshift(flat % size);
    flat = Math.floor(flat / size);
  }
  return `[${index.join(", ")}]`;
}

function describePair(got: number, want: number): string {
  const difference = Math.abs(got - want);
  return `got ${Number(got.toPrecision(9))}, expected ${
    Number(want.toPrecision(9))
  } (|Δ| ${difference.toExponential(1)}`;
}

function describeLimit(limit: number, atol: number, rtol: number): string {
  if (rtol === 0) return `atol ${atol.toExponential(1)}`;
  return `${limit.toExponential(1)} = atol ${atol} + rtol ${rtol} · |expected|`;
}
