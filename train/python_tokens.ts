/**
 * The words of a Python file that consists of literals.
 * @module
 */

/** A word of a Python file. */
export interface PythonToken {
  readonly kind:
    | "name"
    | "number"
    | "text"
    | "symbol"
    | "newline"
    | "bad"
    | "end";
  /** As it is written. */
  readonly text: string;
  /** From 1. */
  readonly line: number;
  /** What a number or a text stands for. */
  readonly value?: number | string;
}

type WordKind = Exclude<PythonToken["kind"], "end"> | "space";

/** Tried in this order at each place. */
const RULES: readonly [kind: WordKind, pattern: RegExp][] = [
  ["space", /(?:[ \t\f\r]|\\\r?\n)+|#[^\n]*/y],
  ["newline", /\n/y],
  ["text", /"""(?:[^\\]|\\[^])*?"""|'''(?:[^\\]|\\[^])*?'''/y],
  ["text", /"(?:[^"\\\n]|\\[^])*"|'(?:[^'\\\n]|\\[^])*'/y],
  ["name", /[\p{L}_][\p{L}\p{N}_]*/uy],
  ["number", /0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+/y],
  ["number", /(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)?/y],
  ["symbol", /\*\*|\/\/|[-+*/%()[\]{},:;=]/y],
];

const ESCAPES: Readonly<Record<string, string>> = {
  "\n": "",
  n: "\n",
  t: "\t",
  r: "\r",
  0: "\0",
};

/**
 * Splits a file into words; line ends inside brackets are left out, and "end" comes last.
 * What is no word of a literal is "bad", with a description for its text.
 */
export function pythonTokens(text: string): PythonToken[] {
  const tokens: PythonToken[] = [];
  let line = 1;
  let depth = 0; // of brackets
  for (let at = text.startsWith("\ufeff") ? 1 : 0; at < text.length;) {
    const [kind, word] = wordAt(text, at);
    const next = text.slice(at + word.length, at + word.length + 2);
    const isIndented = kind === "space" && depth === 0 && /^[ \t]/.test(word) &&
      (at === 0 || text[at - 1] === "\n") && /^[^\s#]/.test(next);
    if (isIndented) {
      tokens.push({ kind: "bad", text: "an indented line", line });
    } else if (kind !== "space" && (kind !== "newline" || depth === 0)) {
      tokens.push(tokenOf(kind, word, next, line));
    }
    if (kind === "symbol" && "([{".includes(word)) depth++;
    if (kind === "symbol" && ")]}".includes(word)) depth = Math.max(0, --depth);
    line += word.split("\n").length - 1;
    at += word.length;
  }
  return [...tokens, { kind: "end", text: "", line }];
}

function tokenOf(
  kind: PythonToken["kind"],
  word: string,
  next: string,
  line: number,
): PythonToken {
  if (kind !== "number" && kind !== "text") return { kind, text: word, line };
  const value = kind === "text" ? unquote(word) : numberOf(word);
  const isWhole = kind === "text" || !/^[\p{L}_]/u.test(next);
  if (value !== undefined && isWhole) return { kind, text: word, line, value };
  const shown = word.split("\n")[0]! + (isWhole ? "" : next[0]);
  return { kind: "bad", text: `"${shown}"`, line };
}

function wordAt(
  text: string,
  at: number,
): [kind: WordKind, word: string] {
  for (const [kind, pattern] of RULES) {
    pattern.lastIndex = at;
    const word = pattern.exec(text)?.[0];
    if (word) return [kind, word];
  }
  return ["symbol", text[at]!]; // no literal has it
}

/** 4_096, 1e-4, 0x10; undefined where Python refuses too: 1__0, 012. */
function numberOf(word: string): number | undefined {
  if (/__|_$|_[.eE]|[.eE]_/.test(word) || /^0\d/.test(word)) return undefined;
  const value = Number(word.replaceAll("_", ""));
  return Number.isNaN(value) ? undefined : value;
}

/** What a quoted text stands for; undefined with an escape that is not understood. */
function unquote(word: string): string | undefined {
  const n = /^("""|''')/.test(word) ? 3 : 1;
  let isKnown = true;
  const text = word.slice(n, -n).replace(/\\([^])/g, (_, escape: string) => {
    if (`\\'"`.includes(escape)) return escape;
    isKnown &&= escape in ESCAPES;
    return ESCAPES[escape] ?? "";
  });
  return isKnown ? text : undefined;
}
