/**
 * Command lines from a table: one table is the flags, their type and the help.
 * A value is the flag's, else the `--config` file's, else the default.
 * @module
 */
import { parseArgs } from "node:util";
import {
  checkValue,
  type ConfigOf,
  details,
  flagName,
  type FlagTable,
  kindOf,
  placeholder,
  valueOf,
} from "./flag_table.ts";
import { nearest } from "./suggest.ts";

export type { ConfigOf, Flag, FlagTable } from "./flag_table.ts";

/** How a command uses its table. */
export interface ParseOptions<T extends FlagTable> {
  /** The command, as it is typed: "train". */
  readonly name: string;
  /** What it does, in one line. */
  readonly description: string;
  /** Flags that arguments without a flag set, in order; one of type "strings" takes all that are left. */
  readonly positionals?: readonly (keyof T & string)[];
  /** Values of the `--config` file, {} without one; a command that leaves this out takes no `--config`. */
  readonly config?: Partial<ConfigOf<T>>;
}

/**
 * The values of a command line, or the help text when `--help` or `-h` is in it.
 * @throws {RangeError} If a flag is unknown (suggests the nearest) or a value out of range.
 * @throws {TypeError} If a value is missing or of the wrong kind.
 */
export function parseFlags<const T extends FlagTable>(
  table: T,
  argv: readonly string[],
  options: ParseOptions<T>,
): ConfigOf<T> | { help: string } {
  const { name: command, config } = options;
  const values = new Map<string, unknown>(Object.entries(config ?? {}));
  const given = new Map<string, unknown>();
  const loose: string[] = [];
  const tokens = tokenize(table, argv);
  if (
    tokens.some((token) => token.kind === "option" && token.name === "help")
  ) {
    return { help: helpText(table, options) };
  }
  for (const token of tokens) {
    if (token.kind === "positional") loose.push(token.value);
    if (token.kind !== "option") continue;
    if (token.name === "config" && config !== undefined) continue;
    const [key, value] = readOption(table, token, command);
    given.set(key, addValue(given.get(key), value));
  }
  for (const [key, value] of placeLoose(table, loose, options)) {
    if (given.has(key)) {
      throw new RangeError(
        `Cannot run ${command}: expected ${flagName(key)} once: got ${
          JSON.stringify(value)
        } without a flag as well`,
      );
    }
    given.set(key, value);
  }
  for (const [key, value] of given) values.set(key, value);
  return withDefaults(table, values, command);
}

/**
 * The file that `--config` names in a command line, if any. Read it, check it with
 * `mergeConfig`, and give the result to `parseFlags`.
 */
export function configPath(
  table: FlagTable,
  argv: readonly string[],
): string | undefined {
  let path: string | undefined;
  for (const token of tokenize(table, argv)) {
    if (token.kind !== "option" || token.name !== "config") continue;
    path = optionValue(token, "the command");
  }
  return path;
}

/**
 * Checks the JSON of a `--config` file against a table.
 * @throws {RangeError} If a key is unknown (suggests the nearest) or a value out of range.
 * @throws {TypeError} If a value is of the wrong kind.
 */
export function mergeConfig<const T extends FlagTable>(
  table: T,
  json: unknown,
  fileName: string,
): Partial<ConfigOf<T>> {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new TypeError(
      `Cannot read "${fileName}": expected an object of flags: got another JSON value`,
    );
  }
  for (const [key, value] of Object.entries(json)) {
    if (!Object.hasOwn(table, key)) {
      const [near] = nearest(key, Object.keys(table), 1);
      throw new RangeError(
        `Cannot read "${fileName}": no flag "${key}"${
          near === undefined ? "" : `: did you mean "${near}"?`
        }`,
      );
    }
    checkValue(
      table[key]!,
      value,
      `Cannot read "${fileName}": expected ${key}`,
    );
  }
  // Every entry was checked against the table just now.
  return json as Partial<ConfigOf<T>>;
}

type Token = NonNullable<ReturnType<typeof parseArgs>["tokens"]>[number];
type OptionToken = Extract<Token, { kind: "option" }>;

/** Splits a command line; every flag is known in both spellings, all else is left for errors. */
function tokenize(table: FlagTable, argv: readonly string[]): Token[] {
  const known: Record<string, { type: "boolean" | "string"; short?: string }> =
    { help: { type: "boolean", short: "h" }, config: { type: "string" } };
  for (const [key, flag] of Object.entries(table)) {
    const type = kindOf(flag) === "boolean" ? "boolean" : "string";
    for (const name of [key, key.replaceAll("_", "-")]) {
      known[name] = { type };
    }
  }
  // Not strict: its errors take several lines and suggest nothing.
  const { tokens } = parseArgs({
    args: [...argv],
    options: known,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  return tokens;
}

/** The flag and the value of one option. */
function readOption(
  table: FlagTable,
  token: OptionToken,
  command: string,
): [key: string, value: unknown] {
  const key = token.name.replaceAll("-", "_");
  const positive = key.replace(/^no_/, "");
  const isLong = token.rawName.startsWith("--");
  const isOff = !Object.hasOwn(table, key) && positive !== key &&
    Object.hasOwn(table, positive) && kindOf(table[positive]!) === "boolean";
  const found = isOff ? positive : key;
  if (!isLong || !Object.hasOwn(table, found)) {
    const [near] = nearest(key, [...Object.keys(table), "help"], 1);
    throw new RangeError(
      `Cannot run ${command}: no flag ${token.rawName}: ${
        near === undefined ? "see --help" : `did you mean ${flagName(near)}?`
      }`,
    );
  }
  const flag = table[found]!;
  if (kindOf(flag) === "boolean") {
    if (token.value === undefined) return [found, !isOff];
    throw new TypeError(
      `Cannot run ${command}: expected ${token.rawName} without a value: got "${token.value}"`,
    );
  }
  const text = optionValue(token, command);
  const subject = `Cannot run ${command}: expected ${flagName(found)}`;
  return [found, valueOf(flag, text, subject)];
}

function optionValue(token: OptionToken, command: string): string {
  const { rawName, value, inlineValue } = token;
  if (value !== undefined && (inlineValue || !/^--./.test(value))) return value;
  throw new TypeError(
    `Cannot run ${command}: expected a value after ${rawName}: got ${
      value === undefined
        ? "nothing"
        : `the flag ${value}: write ${rawName}=${value} if it is the value`
    }`,
  );
}

/** Adds a value to those given before: lists are joined, all else is replaced. */
function addValue(before: unknown, value: unknown): unknown {
  return Array.isArray(before) && Array.isArray(value)
    ? [...before, ...value]
    : value;
}

/** Gives arguments without a flag to the flags that take them. */
function placeLoose<T extends FlagTable>(
  table: T,
  loose: readonly string[],
  { name: command, positionals = [] }: ParseOptions<T>,
): Map<string, unknown> {
  const placed = new Map<string, unknown>();
  for (const [i, text] of loose.entries()) {
    const last = positionals.at(-1);
    const key = positionals[i] ??
      (last !== undefined && kindOf(table[last]!) === "strings"
        ? last
        : undefined);
    if (key === undefined) {
      throw new RangeError(
        `Cannot run ${command}: expected ${
          positionals.length === 0
            ? "flags only"
            : `at most ${positionals.length} without a flag`
        }: got ${JSON.stringify(text)}: put text with spaces in quotes`,
      );
    }
    const flag = table[key]!;
    const subject = `Cannot run ${command}: expected ${key.toUpperCase()}`;
    const value = valueOf(flag, text, subject);
    placed.set(key, addValue(placed.get(key), value));
  }
  return placed;
}

function withDefaults<T extends FlagTable>(
  table: T,
  values: ReadonlyMap<string, unknown>,
  command: string,
): ConfigOf<T> {
  const entries = Object.entries(table).map(([key, flag]) => {
    const value = values.get(key) ??
      ("default" in flag ? flag.default : undefined) ??
      (kindOf(flag) === "strings" ? [] : undefined);
    if (value === undefined && "required" in flag) {
      throw new TypeError(
        `Cannot run ${command}: expected ${flagName(key)} ${
          placeholder(flag)
        }: got nothing: ${flag.help}`,
      );
    }
    return [key, value];
  });
  // Every value was checked against the table when it was read.
  return Object.fromEntries(entries) as ConfigOf<T>;
}

function helpText<T extends FlagTable>(
  table: T,
  { name, description, positionals = [], config }: ParseOptions<T>,
): string {
  const rows = Object.entries(table).map(([key, flag]) => {
    const kind = kindOf(flag);
    const value = kind === "boolean" ? "" : ` ${placeholder(flag)}`;
    return [`${flagName(key)}${value}`, `${flag.help}${details(key, flag)}`];
  });
  if (config !== undefined) {
    rows.push(["--config FILE", "JSON file of flags; flags given here win"]);
  }
  rows.push(["--help", "this text"]);
  const width = Math.max(...rows.map(([left]) => left!.length));
  const loose = positionals.map((key) => ` [${key.toUpperCase()}]`).join("");
  return [
    `${description}\n`,
    `Usage: ./ocs ${name}${loose} [flags]\n`,
    ...rows.map(([left, right]) => `  ${left!.padEnd(width)}  ${right}`),
  ].join("\n");
}
