/**
 * Which bytes of a file are there, and which are yet to be fetched.
 * @module
 */

/** The bytes [start, end). */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** Number of bytes in ranges that may overlap. */
export function countBytes(ranges: readonly ByteRange[]): number {
  return mergeRanges(ranges).reduce(
    (sum, { start, end }) => sum + end - start,
    0,
  );
}

/** The same bytes as ranges that neither touch nor overlap, in order. */
export function mergeRanges(ranges: readonly ByteRange[]): ByteRange[] {
  const merged: { start: number; end: number }[] = [];
  const sorted = ranges.filter(({ start, end }) => start < end).sort((a, b) =>
    a.start - b.start
  );
  for (const { start, end } of sorted) {
    const last = merged.at(-1);
    if (last && start <= last.end) last.end = Math.max(last.end, end);
    else merged.push({ start, end });
  }
  return merged;
}

/** What is missing of `size` bytes, in pieces of at most `pieceBytes`. */
export function missingRanges(
  size: number,
  done: readonly ByteRange[],
  pieceBytes: number,
): ByteRange[] {
  const missing: ByteRange[] = [];
  let at = 0;
  for (
    const { start, end } of [...mergeRanges(done), { start: size, end: size }]
  ) {
    for (; at < start; at = Math.min(start, at + pieceBytes)) {
      missing.push({ start: at, end: Math.min(start, at + pieceBytes) });
    }
    at = end;
  }
  return missing;
}

/** The line in the log of a file's ranges that says one of them is on the disk. */
export function formatRange({ start, end }: ByteRange): string {
  return `${start} ${end}\n`;
}

/**
 * The ranges in a log, merged. A last line without its end is of a write that was killed, and a
 * log with any other line that is none, or a range outside the file, is believed in nothing.
 */
export function parseRanges(log: string, size: number): ByteRange[] {
  const ranges: ByteRange[] = [];
  for (const line of log.split("\n").slice(0, -1)) {
    const match = /^(\d{1,16}) (\d{1,16})$/.exec(line);
    const [start, end] = [Number(match?.[1]), Number(match?.[2])];
    if (!match || start > end || end > size) return [];
    ranges.push({ start, end });
  }
  return mergeRanges(ranges);
}
