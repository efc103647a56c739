/**
 * Pieces of WGSL that the bodies of the matrix product family share.
 * @module
 */
import type { MatmulVariant } from "./matmul.ts";

/** 0 to n − 1. */
export const range = (n: number): number[] => [...Array(n).keys()];
/** Rows of text as one text. */
export const lines = (rows: Iterable<string>): string => [...rows].join("\n");

/** Unpacks the element at `index` of a scalar-addressed operand. */
export function unpackOne(
  bType: MatmulVariant["bType"],
  index: string,
  name = "B",
): string {
  if (bType === "f32") return `${name}[${index}]`;
  if (bType === "bf16") {
    return `bitcast<f32>((${name}[(${index}) >> 1u] >> (16u * ((${index}) & 1u))) << 16u)`;
  }
  return `unpack2x16float(${name}[(${index}) >> 1u])[(${index}) & 1u]`;
}

/** Two vec4 of floats, named `to` with the numbers from `first` on, from a vec4 of packed bf16 or f16 pairs. */
export function unpackEight(
  type: MatmulVariant["bType"],
  from: string,
  to: string,
  first = 0,
): string[] {
  return [0, 1].map((h) => {
    const [x, y] = [`${from}[${2 * h}]`, `${from}[${2 * h + 1}]`];
    if (type === "f16") {
      return `let ${to}${
        first + h
      } = vec4<f32>(unpack2x16float(${x}), unpack2x16float(${y}));`;
    }
    const pair = (word: string) =>
      `bitcast<f32>(${word} << 16u), bitcast<f32>(${word} & 0xffff0000u)`;
    return `let ${to}${first + h} = vec4<f32>(${pair(x)}, ${pair(y)});`;
  });
}

/** Stores an element of C at row m and column n, after the epilogue. */
export function store(
  { epilogue }: MatmulVariant,
  m: string,
  n: string,
  value: string,
): string {
  const at = `(${m}) * u.ldc + u.c_col + (${n})`;
  if (!epilogue) return `C[${at}] = ${value};`;
  const { elements = [], columns = [] } = epilogue;
  const e = pair(elements.map((name) => `${name}[at]`));
  const c = pair(columns.map((name) => `${name}[u.c_col + (${n})]`));
  return `{ let at = ${at}; C[at] = epilogue(${value}, ${e}, ${c}, ${m}); }`;
}

/** Up to two numbers as the vec2 that an epilogue takes. */
export function pair([x = "0.0", y = "0.0"]: readonly string[]): string {
  return `vec2<f32>(${x}, ${y})`;
}
