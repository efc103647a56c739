/**
 * What a residual shard says of itself, and which columns it must have.
 * @module
 */
import { z } from "zod";
import { checkJson } from "./check_json.ts";
import { type HookPoint, isHookPoint } from "./hook_point.ts";
import type { LeafColumn, ParquetFile } from "./parquet.ts";
import { BINARY_COLUMN, LIST_COLUMN } from "./residual_pages.ts";

/** What a shard says of itself, so that it means something without its folder. */
export interface ResidualHeader {
  /** Name of the model that was read. */
  readonly modelName: string;
  /** Fingerprint of its weights and config. */
  readonly modelFingerprint: string;
  /** Revision of its repository, where it came from one. */
  readonly revision?: string | undefined;
  /** Where it was read. */
  readonly hookPoint: HookPoint;
  /** Element type of the rows. */
  readonly dtype: "bf16";
  /** Elements of a row. */
  readonly d_model: number;
  /** Rows of the shard, and elements of a row. */
  readonly shape: readonly [n_rows: number, d_model: number];
  /** What the model's vectors were multiplied by before they were stored; 1: they are as the model has them. */
  readonly scale: number;
}

/** Key under which the header lies in the file. */
export const HEADER_KEY = "open_concept_steering";
/** Columns that say which token a row belongs to. */
export const LABELS: readonly ["token_id", "position", "document"] = [
  "token_id",
  "position",
  "document",
];

/** Larger than any model's stream; keeps a false header from claiming memory. */
const MAX_D_MODEL = 1_048_576;

/** The header as a file has it; the first shards that were written say neither shape nor scale. */
interface StoredHeader extends Omit<ResidualHeader, "shape"> {
  readonly shape?: ResidualHeader["shape"] | undefined;
}

/** Form of the header. */
export const Header: z.ZodType<StoredHeader> = z.object({
  modelName: z.string(),
  modelFingerprint: z.string(),
  revision: z.string().optional(),
  hookPoint: z.string().refine(isHookPoint, "expected a hook point"),
  dtype: z.literal("bf16"),
  d_model: z.int().min(1).max(MAX_D_MODEL),
  shape: z.tuple([z.int().min(1), z.int().min(1)]).optional(),
  scale: z.number().positive().default(1),
});

/**
 * Reads the header of a file.
 * @returns Undefined if it has none: then it is not ours.
 * @throws {SyntaxError} If it has one that is wrong, or not for as many rows.
 */
export function readHeader(file: ParquetFile): ResidualHeader | undefined {
  const text = file.keyValues.get(HEADER_KEY);
  if (text === undefined) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // Falls through to the schema, which refuses undefined.
  }
  const { d_model, ...rest } = checkJson(Header, json, file.name);
  const shape = [file.n_rows, d_model] as const;
  if (rest.shape && String(rest.shape) !== String(shape)) {
    throw new SyntaxError(
      `Cannot read "${file.name}": expected ${rest.shape[0]} rows of ${
        rest.shape[1]
      } by its header: got ${file.n_rows} of ${d_model}: collect it again`,
    );
  }
  return { ...rest, d_model, shape };
}

/**
 * Refuses a file whose columns are not those of residuals.
 * @throws {SyntaxError} Names the column that is not there, or of another type.
 */
export function checkColumns(
  file: ParquetFile,
  header: ResidualHeader | undefined,
): void {
  const refuse = (expected: string, got: string): SyntaxError =>
    new SyntaxError(
      `Cannot read "${file.name}": expected ${expected}: got ${got}: collect it again`,
    );
  const lists = file.columns.includes(LIST_COLUMN);
  if (!lists && !header) {
    throw refuse(
      `residuals, a column "${BINARY_COLUMN}" with our header or "${LIST_COLUMN}"`,
      `columns ${JSON.stringify(file.columns)}`,
    );
  }
  const rows = file.leaf(lists ? LIST_COLUMN : BINARY_COLUMN);
  if (lists && !(rows?.isUint16 && rows.maxRepetition === 1)) {
    throw refuse(
      `a column "${LIST_COLUMN}" of lists of uint16`,
      describeLeaf(rows),
    );
  }
  if (!lists && !(rows?.type === "BYTE_ARRAY" && rows.maxRepetition === 0)) {
    throw refuse(`a column "${BINARY_COLUMN}" of binary`, describeLeaf(rows));
  }
  const labels = LABELS.filter((name) => file.columns.includes(name));
  for (const name of header ? LABELS : labels) {
    const leaf = file.leaf(name);
    if (leaf?.type === "INT32" && leaf.maxRepetition === 0) continue;
    throw refuse(`a column "${name}" of int32`, describeLeaf(leaf));
  }
}

function describeLeaf(leaf: LeafColumn | undefined): string {
  if (!leaf) return "none";
  return `${leaf.maxRepetition > 0 ? "lists of " : ""}${leaf.type}`;
}
