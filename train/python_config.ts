/**
 * Settings in Python files, read as data: assignments of literals, nothing is executed.
 * @module
 */
import { type PythonToken, pythonTokens } from "./python_tokens.ts";

/** A value that a literal can make; numbers are float64, whole ones exact. */
export type PythonValue =
  | number
  | string
  | boolean
  | null
  | readonly PythonValue[]
  | PythonDict;

/** A dictionary with text keys. */
export type PythonDict = ReadonlyMap<string, PythonValue>;

/** Literals nested deeper are refused. */
const MOST_NESTED = 100;

const CONSTANTS: Readonly<Record<string, boolean | null>> = {
  True: true,
  False: false,
  None: null,
};

/**
 * The variables of a Python file that consists of assignments `name = literal`: numbers,
 * arithmetic on them, texts, lists, tuples, dictionaries, True, False, None and names assigned before.
 * @param fileName What errors call the file.
 * @throws {SyntaxError} If there is anything else: names the line.
 */
export function parsePythonConfig(
  text: string,
  fileName: string,
): ReadonlyMap<string, PythonValue> {
  return new Reader(pythonTokens(text), fileName).file();
}

/** Recursive descent over the tokens. */
class Reader {
  readonly #tokens: readonly PythonToken[];
  readonly #fileName: string;
  readonly #variables = new Map<string, PythonValue>();
  #next = 0;
  #nested = 0;

  constructor(tokens: readonly PythonToken[], fileName: string) {
    this.#tokens = tokens;
    this.#fileName = fileName;
  }

  file(): ReadonlyMap<string, PythonValue> {
    while (!this.#isAt("end")) {
      if (this.#take("newline")) continue;
      this.#statement();
      if (!this.#take(";") && !this.#isAt("end")) this.#expect("newline");
    }
    return this.#variables;
  }

  /** `name = value`, or a text alone, which is a comment to Python. */
  #statement(): void {
    if (this.#token.kind === "text") {
      this.#value();
      return;
    }
    const { kind, text } = this.#token;
    if (kind !== "name" || Object.hasOwn(CONSTANTS, text)) this.#refuse();
    if (this.#tokens[this.#next + 1]?.text !== "=") this.#refuse();
    this.#next += 2;
    this.#variables.set(text, this.#value());
  }

  #value(): PythonValue {
    if (++this.#nested > MOST_NESTED) {
      throw this.#error(`at most ${MOST_NESTED} nested values`, "more");
    }
    const value = this.#sum();
    this.#nested--;
    return value;
  }

  #sum(): PythonValue {
    let left = this.#product();
    for (let op = this.#operator("+", "-"); op; op = this.#operator("+", "-")) {
      const { line } = op;
      const [a, b] = [this.#number(left, line), this.#product()];
      const c = this.#number(b, line);
      left = this.#checked(op.text === "+" ? a + c : a - c, line);
    }
    return left;
  }

  #product(): PythonValue {
    const ops = ["*", "/", "//", "%"];
    let left = this.#signed();
    for (let op = this.#operator(...ops); op; op = this.#operator(...ops)) {
      const a = this.#number(left, op.line);
      const b = this.#number(this.#signed(), op.line);
      left = this.#checked(calculate(a, op.text, b), op.line);
    }
    return left;
  }

  #signed(): PythonValue {
    const op = this.#operator("+", "-");
    if (!op) return this.#power();
    if (++this.#nested > MOST_NESTED) {
      throw this.#error(`at most ${MOST_NESTED} nested values`, "more");
    }
    const value = this.#number(this.#signed(), op.line);
    this.#nested--;
    return op.text === "-" ? 0 - value : value;
  }

  #power(): PythonValue {
    const base = this.#atom();
    const op = this.#operator("**");
    if (!op) return base;
    const exponent = this.#number(this.#signed(), op.line);
    return this.#checked(this.#number(base, op.line) ** exponent, op.line);
  }

  #atom(): PythonValue {
    const { kind, line, value } = this.#token;
    if (kind === "number") {
      this.#next++;
      return this.#checked(value as number, line);
    }
    if (kind === "text") return this.#text();
    if (kind === "name") return this.#constant();
    if (this.#take("{")) return this.#dict();
    if (this.#take("[")) return this.#items("]").values;
    if (this.#take("(")) {
      const { values, hasComma } = this.#items(")");
      return values.length === 1 && !hasComma ? values[0]! : values;
    }
    return this.#refuse();
  }

  /** Texts beside each other are one. */
  #text(): string {
    let text = "";
    while (this.#token.kind === "text") {
      text += this.#token.value as string;
      this.#next++;
    }
    return text;
  }

  #constant(): PythonValue {
    const { text } = this.#token;
    const value = Object.hasOwn(CONSTANTS, text)
      ? CONSTANTS[text]
      : this.#variables.get(text);
    if (value === undefined) this.#refuse();
    this.#next++;
    return value;
  }

  #items(close: string): { values: PythonValue[]; hasComma: boolean } {
    const values: PythonValue[] = [];
    let hasComma = false;
    while (!this.#take(close)) {
      if (values.length > 0) {
        this.#expect(",");
        hasComma = true;
        if (this.#take(close)) break;
      }
      values.push(this.#value());
    }
    return { values, hasComma };
  }

  #dict(): PythonDict {
    const entries = new Map<string, PythonValue>();
    for (let isFirst = true; !this.#take("}"); isFirst = false) {
      if (!isFirst) {
        this.#expect(",");
        if (this.#take("}")) break;
      }
      if (this.#token.kind !== "text") this.#refuse();
      const key = this.#text();
      this.#expect(":");
      entries.set(key, this.#value());
    }
    return entries;
  }

  get #token(): PythonToken {
    return this.#tokens[this.#next]!; // the last one is "end", which nothing takes
  }

  #isAt(text: string): boolean {
    const { kind } = this.#token;
    return text === "newline" || text === "end"
      ? kind === text
      : kind === "symbol" && this.#token.text === text;
  }

  #take(text: string): boolean {
    const isThere = this.#isAt(text);
    if (isThere) this.#next++;
    return isThere;
  }

  #expect(text: string): void {
    if (this.#take(text)) return;
    const name = text === "newline" ? "the end of the line" : `"${text}"`;
    throw this.#error(name, this.#got());
  }

  /** Takes one of these operators. */
  #operator(...texts: string[]): PythonToken | undefined {
    const token = this.#token;
    if (token.kind !== "symbol" || !texts.includes(token.text)) return;
    this.#next++;
    return token;
  }

  #number(value: PythonValue, line: number): number {
    if (typeof value === "number") return value;
    throw this.#error("numbers to calculate with", "another value", line);
  }

  /** A result that float64 holds; whole ones exactly. */
  #checked(value: number, line: number): number {
    const isExact = !Number.isInteger(value) || Number.isSafeInteger(value) ||
      Math.abs(value) >= 1e22;
    if (Number.isFinite(value) && isExact) return value;
    throw this.#error("a finite number below 2^53", String(value), line);
  }

  #refuse(): never {
    throw this.#error(
      "assignments of numbers, texts, lists and dictionaries, which are read and never executed",
      this.#got(),
    );
  }

  #got(): string {
    const { kind, text } = this.#token;
    if (kind === "end") return "the end of the file";
    if (kind === "bad") return text;
    return kind === "newline" ? "the end of the line" : `"${text}"`;
  }

  #error(
    expected: string,
    got: string,
    line: number = this.#token.line,
  ): SyntaxError {
    return new SyntaxError(
      `Cannot read "${this.#fileName}" line ${line}: expected ${expected}: got ${got}`,
    );
  }
}

function calculate(a: number, operator: string, b: number): number {
  if (operator === "*") return a * b;
  if (operator === "/") return a / b;
  // Both round towards minus infinity in Python.
  return operator === "//" ? Math.floor(a / b) : a - b * Math.floor(a / b);
}
