/**
 * Suggestions for names that do not exist, shared by flags and tensors.
 * @module
 */

/** The names nearest to a wrong one by edit distance, at most n, none that differs in more than half. */
export function nearest(
  wrong: string,
  names: Iterable<string>,
  n: number,
): string[] {
  return Array.from(names, (name) => ({ name, edits: edits(wrong, name) }))
    .filter(({ name, edits }) =>
      edits <= Math.max(wrong.length, name.length) / 2
    )
    .sort((a, b) => a.edits - b.edits)
    .slice(0, n)
    .map(({ name }) => name);
}

/** Levenshtein distance: insertions, deletions and replacements. */
function edits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
