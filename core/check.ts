/** One comparison with a reference. */
export interface Check {
  /** What was compared. */
  readonly name: string;
  /** ‖got − reference‖ / ‖reference‖, or what the name says; infinite if a value is not finite. */
  readonly error: number;
  /** Largest error that passes. */
  readonly limit: number;
  /** Whether it passes. */
  readonly ok: boolean;
}

/** A check of an error that is known; one that is not finite never passes. */
export function checkOf(name: string, error: number, limit: number): Check {
  const known = Number.isFinite(error) ? error : Infinity;
  return { name, error: known, limit, ok: known <= limit };
}

/** ‖got − want‖ / ‖want‖ in float64; infinite if the lengths differ, or a value is not finite. */
export function relativeError(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
): number {
  if (got.length !== want.length || got.length === 0) return Infinity;
  let difference = 0;
  let size = 0;
  for (let i = 0; i < want.length; i++) {
    difference += (got[i]! - want[i]!) ** 2;
    size += want[i]! ** 2;
  }
  const error = Math.sqrt(difference) / Math.sqrt(size);
  return Number.isFinite(error) ? error : difference === 0 ? 0 : Infinity;
}

/** Share of elements that differ: 0 passes for token ids. */
export function shareDifferent(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
): number {
  const length = Math.max(got.length, want.length);
  if (length === 0) return Infinity;
  let different = 0;
  for (let i = 0; i < length; i++) if (got[i] !== want[i]) different++;
  return different / length;
}
