/**
 * Two texts beside each other on a terminal.
 * @module
 */

/** A text with a heading. */
export interface TitledText {
  /** Heading. */
  readonly title: string;
  /** The text; its line breaks are kept. */
  readonly text: string;
}

/** Narrower columns are hard to read. */
const LEAST_COLUMN = 36;
const GAP = "  │  ";

/**
 * Two texts side by side, wrapped at words, in `width` characters; one after the
 * other where that is too narrow, or undefined because nobody looks.
 */
export function sideBySide(
  left: TitledText,
  right: TitledText,
  width: number | undefined,
): string {
  const column = Math.floor(((width ?? 0) - GAP.length) / 2);
  if (column < LEAST_COLUMN) {
    return [left, right].map(({ title, text }) => `${title}:\n${text}\n`)
      .join("\n");
  }
  const rows = [left, right].map(({ title, text }) => [
    ...wrap(title, column),
    "─".repeat(column),
    ...wrap(text, column),
  ]);
  const nRows = Math.max(...rows.map((column) => column.length));
  const cell = (side: number, i: number): string => rows[side]![i] ?? "";
  return Array.from(
    { length: nRows },
    (_, i) => cell(0, i).padEnd(column) + GAP + cell(1, i) + "\n",
  ).join("");
}

/** Lines of at most `width` characters, broken at spaces where there are any. */
export function wrap(text: string, width: number): string[] {
  return text.split("\n").flatMap((paragraph) => {
    const lines: string[] = [];
    let rest = paragraph;
    while (rest.length > width) {
      const space = rest.lastIndexOf(" ", width);
      const end = space > 0 ? space : width;
      lines.push(rest.slice(0, end));
      rest = rest.slice(end).trimStart();
    }
    return [...lines, rest];
  });
}

/** Characters in a line of standard output; undefined where that is no terminal. */
export function terminalWidth(): number | undefined {
  return Deno.stdout.isTerminal() ? Deno.consoleSize().columns : undefined;
}
