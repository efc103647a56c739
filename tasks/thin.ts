/**
 * Long curves with no more points than can be seen.
 * @module
 */
import type { CurvePoint } from "./plots.ts";

/**
 * At most four points for each of `columns` stretches of the x axis: the first, the
 * lowest, the highest and the last of those that are there, so that every spike stays.
 * @param points With x rising; those whose y is not finite are left out.
 */
export function thin(
  points: readonly CurvePoint[],
  columns: number,
): CurvePoint[] {
  const finite = points.filter(({ y }) => Number.isFinite(y));
  if (finite.length <= 4 * columns) return finite;
  return stretches(finite, columns).flatMap((part) => {
    let [low, high] = [0, 0];
    for (const [i, { y }] of part.entries()) {
      if (y < part[low]!.y) low = i;
      if (y > part[high]!.y) high = i;
    }
    const kept = [...new Set([0, low, high, part.length - 1])];
    return kept.sort((a, b) => a - b).map((i) => part[i]!);
  });
}

/**
 * At most one point for each of `columns` stretches of the x axis: the mean of its y, at its first x.
 * @param points With x rising; those whose y is not finite are left out.
 */
export function average(
  points: readonly CurvePoint[],
  columns: number,
): CurvePoint[] {
  const finite = points.filter(({ y }) => Number.isFinite(y));
  if (finite.length <= columns) return finite;
  return stretches(finite, columns).map((part) => ({
    x: part[0]!.x,
    y: part.reduce((sum, { y }) => sum + y, 0) / part.length,
  }));
}

/** The points by equal stretches of x; stretches without any are left out. */
function stretches(
  points: readonly CurvePoint[],
  columns: number,
): CurvePoint[][] {
  const first = points[0]!.x;
  const width = (points.at(-1)!.x - first) / columns || 1;
  const parts: CurvePoint[][] = [];
  let column = -1;
  for (const point of points) {
    const at = Math.min(columns - 1, Math.floor((point.x - first) / width));
    if (at !== column) parts.push([]);
    column = at;
    parts.at(-1)!.push(point);
  }
  return parts;
}
