/**
 * Numbers and tables for people.
 * @module
 */

/** A whole number with commas between thousands: 176,727. */
export function formatCount(n: number): string {
  return Math.round(n).toLocaleString("en-US");
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];

/** A size in decimal units with three digits: 10.2 MB. */
export function formatBytes(bytes: number): string {
  let size = bytes;
  let unit = 0;
  while (size >= 999.5 && unit < BYTE_UNITS.length - 1) {
    size /= 1000;
    unit++;
  }
  const digits = unit === 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return `${size.toFixed(digits)} ${BYTE_UNITS[unit]}`;
}

/** A duration in its two largest units: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min. */
export function formatDuration(ms: number): string {
  if (ms < 9950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A rate with three digits: 0.125, 4.25, 96.1, 5,391. */
export function formatRate(perSecond: number): string {
  if (!(perSecond < 99.95)) return formatCount(perSecond);
  return perSecond.toPrecision(3);
}

/**
 * Rows as columns that line up, numbers to the right: a column is one of numbers
 * if every cell below the heading starts with a digit, a sign or a point.
 */
export function formatTable(
  heading: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const widths = heading.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length))
  );
  const isNumeric = heading.map((_, column) =>
    rows.every((row) => /^[-+.\d]|^$/.test(row[column] ?? ""))
  );
  const line = (row: readonly string[]): string =>
    widths.map((width, column) => {
      const cell = row[column] ?? "";
      return isNumeric[column] ? cell.padStart(width) : cell.padEnd(width);
    }).join("  ").trimEnd();
  const rule = widths.map((width) => "-".repeat(width)).join("  ");
  return [line(heading), rule, ...rows.map(line)].join("\n");
}
