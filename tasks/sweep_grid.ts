/**
 * The grid of a sweep: every combination of values for some flags of `train`.
 * @module
 */
import {
  checkValue,
  flagName,
  type FlagTable,
  kindOf,
  valueOf,
} from "../core/flag_table.ts";
import { nearest } from "../core/suggest.ts";

/** A flag and the values it takes. */
export interface GridAxis {
  /** As in a table of flags: "target_l0". */
  readonly key: string;
  readonly values: readonly GridValue[];
}

/** A value on an axis. */
export type GridValue = number | string | boolean;

/** A point of the grid. */
export interface GridPoint {
  /** Name of its folder: "lambda=0.5,seed=0". */
  readonly name: string;
  /** Values by flag, in the order of the axes. */
  readonly values: Readonly<Record<string, GridValue>>;
}

/** Names longer than this trouble file systems. */
const LONGEST_NAME = 120;

/**
 * Reads axes as they are typed: `lambda=0.5,1,2`.
 * @param table The flags that may be varied.
 * @throws {RangeError} If a flag is unknown (suggests the nearest), varied twice, or a value out of range or repeated.
 * @throws {TypeError} If a value is of the wrong kind.
 */
export function parseGrid(
  texts: readonly string[],
  table: FlagTable,
): GridAxis[] {
  const axes = texts.map((text) => parseAxis(text, table));
  const keys = axes.map(({ key }) => key);
  const twice = keys.find((key, i) => keys.indexOf(key) < i);
  if (twice === undefined) return axes;
  throw new RangeError(
    `Cannot read --grid: expected every flag once: got ${twice} twice`,
  );
}

function parseAxis(text: string, table: FlagTable): GridAxis {
  const [typed = "", list] = text.split(/=(.*)/s, 2);
  const key = typed.replace(/^--/, "").replaceAll("-", "_");
  const subject = `Cannot read --grid ${JSON.stringify(text)}: expected`;
  if (!list) {
    throw new TypeError(
      `${subject} a flag and its values, such as lambda=0.5,1,2: got no values`,
    );
  }
  const flag = Object.hasOwn(table, key) ? table[key] : undefined;
  if (flag === undefined || kindOf(flag) === "strings") {
    const [near] = nearest(key, Object.keys(table), 1);
    throw new RangeError(
      `${subject} a flag of train that can vary: got ${flagName(key)}${
        near === undefined ? "" : `: did you mean ${near}?`
      }`,
    );
  }
  const values = list.split(",").map((item) => {
    if (kindOf(flag) !== "boolean") {
      return valueOf(flag, item, `${subject} ${key}`) as GridValue;
    }
    const value = { true: true, false: false }[item] ?? item;
    checkValue(flag, value, `${subject} ${key}`);
    return value;
  });
  const twice = values.find((value, i) => values.indexOf(value) < i);
  if (twice === undefined) return { key, values };
  throw new RangeError(`${subject} every value once: got ${twice} twice`);
}

/**
 * All points of a grid; the last axis varies fastest.
 * @throws {RangeError} If two points get the same name.
 */
export function gridPoints(axes: readonly GridAxis[]): GridPoint[] {
  let points: Record<string, GridValue>[] = [{}];
  for (const { key, values } of axes) {
    points = points.flatMap((point) =>
      values.map((value) => ({ ...point, [key]: value }))
    );
  }
  const named = points.map((values) => ({ name: nameOf(values), values }));
  const names = named.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice === undefined) return named;
  throw new RangeError(
    `Cannot name the runs of the grid: expected a name for each: got "${twice}" twice: give values that differ in their first letters and digits`,
  );
}

/** A name that is a folder everywhere, and needs no quotes in a shell. */
function nameOf(values: Readonly<Record<string, GridValue>>): string {
  return Object.entries(values)
    .map(([key, value]) =>
      `${key}=${String(value).replace(/[^\w.+-]+/g, "-").replace(/^-/, "")}`
    )
    .join(",")
    .slice(0, LONGEST_NAME);
}
