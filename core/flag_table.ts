/**
 * Tables of flags: what a flag is, the type of its value, and whether a value fits it.
 * @module
 */

/** What every flag says of itself. */
export interface FlagText {
  /** What it sets, in a few words. */
  readonly help: string;
  /** Unit of the value, such as "tokens". */
  readonly unit?: string;
}

/** A finite number. */
export interface NumberLimits extends FlagText {
  /** Whether it must be whole. */
  readonly integer?: true;
  /** Least value, inclusive. */
  readonly min?: number;
  /** Greatest value, inclusive. */
  readonly max?: number;
}

/** A text. */
export interface StringLimits extends FlagText {
  /** The only values allowed. */
  readonly choices?: readonly string[];
}

/**
 * One flag. A default gives its type; without one it may be left out and is
 * undefined then, unless it is `required`. A flag of type "strings" can be
 * given several times and is [] without any.
 */
export type Flag =
  | (FlagText & { readonly default: boolean })
  | (NumberLimits & { readonly default: number })
  | (NumberLimits & { readonly type: "number"; readonly required?: true })
  | (StringLimits & { readonly default: string })
  | (StringLimits & { readonly type: "string"; readonly required?: true })
  | (FlagText & { readonly type: "strings" });

/** Flags by name: `d_sae` here is `--d-sae` on the command line; `--d_sae` is understood too. */
export type FlagTable = Readonly<Record<string, Flag>>;

/** The type of a flag's value where there is one. */
export type Given<F extends Flag> = F extends { default: boolean } ? boolean
  : F extends { choices: readonly (infer C)[] } ? C
  : F extends { default: number } | { type: "number" } ? number
  : F extends { type: "strings" } ? readonly string[]
  : string;

/** undefined where a flag can be left out and has no default, else never. */
export type MayBeAbsent<F extends Flag> = F extends
  { default: unknown } | { required: true } | { type: "strings" } ? never
  : undefined;

/** The values of a table, typed. */
export type ConfigOf<T extends FlagTable> = {
  readonly [K in keyof T]: Given<T[K]> | MayBeAbsent<T[K]>;
};

/** What a flag's values are. */
export type Kind = "number" | "string" | "strings" | "boolean";

/** The kind of a flag's values, from its type or its default. */
export function kindOf(flag: Flag): Kind {
  if ("type" in flag) return flag.type;
  const kind = typeof flag.default;
  return kind === "number" || kind === "boolean" ? kind : "string";
}

/** A flag as it is typed. */
export function flagName(key: string): string {
  return `--${key.replaceAll("_", "-")}`;
}

/**
 * The value that a text of the command line gives; of one item for a list.
 * `subject` begins the message of the error.
 * @throws {TypeError} If it is of the wrong kind.
 * @throws {RangeError} If it is out of range.
 */
export function valueOf(flag: Flag, text: string, subject: string): unknown {
  const kind = kindOf(flag);
  const value = kind === "number"
    ? parseNumber(text)
    : kind === "strings"
    ? [text]
    : text;
  checkValue(
    flag,
    value,
    subject,
    kind === "number" ? text || '""' : undefined,
  );
  return value;
}

/** A decimal number; NaN for all that `Number` takes besides. */
function parseNumber(text: string): number {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)
    ? Number(text)
    : NaN;
}

/**
 * Throws unless a value fits its flag. `subject` begins the message, `got`
 * is the value as it was written.
 * @throws {TypeError} If it is of the wrong kind.
 * @throws {RangeError} If it is out of range.
 */
export function checkValue(
  flag: Flag,
  value: unknown,
  subject: string,
  got: string = JSON.stringify(value),
): void {
  const kind = KINDS[kindOf(flag)];
  if (!kind.has(value)) {
    throw new TypeError(`${subject} to be ${kind.name}: got ${got}`);
  }
  if (fitsLimits(flag, value)) return;
  throw new RangeError(`${subject} to be ${limitsOf(flag)}: got ${got}`);
}

const isText = (value: unknown): boolean => typeof value === "string";

const KINDS: Record<Kind, { name: string; has: (value: unknown) => boolean }> =
  {
    number: { name: "a number", has: Number.isFinite },
    string: { name: "a text", has: isText },
    strings: {
      name: "a list of texts",
      has: (value) => Array.isArray(value) && value.every(isText),
    },
    boolean: {
      name: "true or false",
      has: (value) => typeof value === "boolean",
    },
  };

function fitsLimits(flag: Flag, value: unknown): boolean {
  if ("choices" in flag && flag.choices) {
    return flag.choices.some((choice) => choice === value);
  }
  if (typeof value !== "number") return true;
  const { integer, min = -Infinity, max = Infinity }: Partial<NumberLimits> =
    flag;
  return value >= min && value <= max &&
    (!integer || Number.isSafeInteger(value));
}

/** What a flag's values are limited to, in words; "" for nothing. */
function limitsOf(flag: Flag): string {
  if ("choices" in flag && flag.choices) return flag.choices.join(" or ");
  const { integer, min, max }: Partial<NumberLimits> = flag;
  const low = min === undefined ? "" : `${min} or more`;
  const high = max === undefined ? "" : `${max} or less`;
  const range = low && high ? `${min} to ${max}` : low || high;
  return [integer ? "a whole number" : "", range].filter(Boolean).join(", ");
}

/** What help writes for the value of a flag. */
export function placeholder(flag: Flag): string {
  return kindOf(flag) === "number" ? "NUMBER" : "STRING";
}

/** Unit, limits and default of a flag, in brackets. */
export function details(key: string, flag: Flag): string {
  const parts = [flag.unit ?? "", limitsOf(flag)];
  if ("required" in flag) parts.push("required");
  if (kindOf(flag) === "strings") parts.push("can be repeated");
  if ("default" in flag && flag.default !== false) {
    parts.push(
      flag.default === true
        ? `on; ${flagName(`no_${key}`)} turns it off`
        : `default ${flag.default}`,
    );
  }
  const text = parts.filter(Boolean).join("; ");
  return text === "" ? "" : ` (${text})`;
}
