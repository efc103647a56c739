/**
 * Long documents in windows that a model can read.
 * @module
 */

/** A part of a document that is read at once: tokens `[start, end)`, of which those from `scoredFrom` on are scored. */
export interface ScoreWindow {
  /** First token of the window in the document. */
  readonly start: number;
  /** One past its last token. */
  readonly end: number;
  /** At least `start + 1`, as the first token has nothing before it. */
  readonly scoredFrom: number;
}

/**
 * Covers a document of `length` tokens such that each token but the first is scored once, with at least
 * `length of the window − stride` tokens before it where there are as many.
 * @param window Most tokens of a window; at least 2.
 * @param stride Tokens that a window scores, from 1 to `window − 1`; the first one scores all of its tokens.
 * @throws {RangeError} If sizes are out of range.
 */
export function scoreWindows(
  length: number,
  window: number,
  stride: number,
): ScoreWindow[] {
  const isWhole = [length, window, stride].every(Number.isSafeInteger);
  if (!isWhole || window < 2 || stride < 1 || stride >= window) {
    throw new RangeError(
      `Cannot score ${length} tokens in windows: expected a window of at least 2 tokens and a stride below it: got ${window} and ${stride}`,
    );
  }
  const windows: ScoreWindow[] = [];
  for (let scored = 1; scored < length;) {
    const end = Math.min(length, scored === 1 ? window : scored + stride);
    windows.push({
      start: Math.max(0, end - window),
      end,
      scoredFrom: scored,
    });
    scored = end;
  }
  return windows;
}
