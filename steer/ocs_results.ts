/**
 * Results as open-concept-steering keeps them: `top_tokens_{n}.json`, `dead_features_{n}.csv` and `feature_labels.csv`,
 * where n is the number of tokens that were read.
 * @module
 */
import { csvLine, readCsv } from "../core/csv.ts";
import { readJson, type Source } from "../core/source.ts";
import type { Tokenizer } from "../core/tokenizer.ts";
import type { FeatureIndex } from "./feature_index.ts";
import type { ImportedLabels } from "./imported_labels.ts";
import type { FeatureLabels } from "./labels.ts";

const LABEL_COLUMNS = ["feature_id", "label", "chain_of_thought", "tokens"];
/** Tokens of a feature that are kept there. */
const MAX_TOKENS = 50;
/** Features that are written at once. */
const FEATURES_PER_CHUNK = 256;

/** What is written. */
export interface OcsResults {
  readonly index: FeatureIndex;
  readonly labels: FeatureLabels;
  readonly tokenizer: Pick<Tokenizer, "decode">;
}

/** A strong activation, and the text of its token. */
type TopToken = readonly [activation: number, token: string];

/** The files of the results; `feature_labels.csv` has the features that have a label. */
export function ocsResultFiles(
  results: OcsResults,
): { file: string; chunks: () => AsyncGenerator<Uint8Array> }[] {
  const { nTokens } = results.index.header;
  const written = (lines: () => Iterable<string>) => () => encoded(lines());
  return [
    {
      file: `top_tokens_${nTokens}.json`,
      chunks: written(() => topTokenLines(results)),
    },
    {
      file: `dead_features_${nTokens}.csv`,
      chunks: written(() => deadLines(results)),
    },
    {
      file: "feature_labels.csv",
      chunks: written(() => labelLines(results)),
    },
  ];
}

async function* encoded(lines: Iterable<string>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder();
  let chunk: string[] = [];
  for (const line of lines) {
    chunk.push(line);
    if (chunk.length < FEATURES_PER_CHUNK) continue;
    yield await Promise.resolve(encoder.encode(chunk.join("")));
    chunk = [];
  }
  yield encoder.encode(chunk.join(""));
}

function topTokens(
  { index, tokenizer }: OcsResults,
  feature: number,
): TopToken[] {
  return index.entry(feature).contexts.slice(0, MAX_TOKENS).map((
    { activation, ids, position, start },
  ) => [activation, tokenizer.decode([ids[position - start]!])]);
}

function* topTokenLines(results: OcsResults): Generator<string> {
  const { d_sae } = results.index.header;
  for (let feature = 0; feature < d_sae; feature++) {
    const open = feature === 0 ? "[" : ", ";
    yield open + JSON.stringify(topTokens(results, feature));
  }
  yield "]";
}

/** A pandas series without a name: the heading is 0, the truth values are Python's. */
function* deadLines({ index }: OcsResults): Generator<string> {
  yield "0\n";
  for (const max of index.numbers.max) yield max > 0 ? "False\n" : "True\n";
}

function* labelLines(results: OcsResults): Generator<string> {
  yield csvLine(LABEL_COLUMNS) + "\n";
  const sorted = [...results.labels].sort(([a], [b]) => a - b);
  for (const [feature, { label, source }] of sorted) {
    const tokens = topTokens(results, feature).map(([activation, token]) =>
      `(${activation}, ${pythonText(token)})`
    ).join(", ");
    yield csvLine([feature, label, source ?? "", `[${tokens}]`]) + "\n";
  }
}

/** Text as Python writes it in a list. */
function pythonText(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\\n\r\t\p{Cc}]/gu, (character) => {
    const known = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };
    const code = character.charCodeAt(0).toString(16).padStart(2, "0");
    return (known as Record<string, string>)[character] ?? `\\x${code}`;
  });
  return quote + (quote === "'" ? escaped.replaceAll("'", "\\'") : escaped) +
    quote;
}

/**
 * Adds the labels of a `feature_labels.csv`; its reasons become their source, and its tokens are left.
 * @throws {SyntaxError} If it is no CSV or has other columns: names the file and the row.
 * @throws {RangeError} If a label is of no feature of the SAE, or too long.
 */
export async function readOcsLabels(
  source: Source,
  into: ImportedLabels,
): Promise<void> {
  const rows = readCsv(source);
  const { value: heading } = await rows.next();
  if (heading?.fields.join() !== LABEL_COLUMNS.join()) {
    throw new SyntaxError(
      `Cannot read "${source.name}": expected the columns ${
        LABEL_COLUMNS.join(", ")
      }: got ${JSON.stringify(heading?.fields.join(", ").slice(0, 80) ?? "")}`,
    );
  }
  for await (const { fields: [feature, label, reason], number } of rows) {
    const place = `"${source.name}" row ${number}`;
    into.add(feature!, { label: label!, source: reason! }, place);
  }
}

/**
 * The largest activation of each feature by a `top_tokens_{n}.json`, f32 `[d_sae]`: 0 where no token has one above 0.
 * @throws {SyntaxError} If it is not a list of lists of an activation and a token: names the feature.
 * @throws {RangeError} If it is of another number of features, or has no finite activation where one must be.
 */
export async function readOcsFeatureMax(
  source: Source,
  d_sae: number,
): Promise<Float32Array<ArrayBuffer>> {
  const json = await readJson(source);
  if (!Array.isArray(json)) {
    throw new SyntaxError(
      `Cannot read "${source.name}": expected a list with a list of each feature: got another value`,
    );
  }
  checkCount(source, json.length, d_sae);
  return Float32Array.from(json, (tokens, feature) => {
    const isList = Array.isArray(tokens) && tokens.length <= MAX_TOKENS &&
      tokens.every(isTopToken);
    if (!isList) {
      throw new SyntaxError(
        `Cannot read "${source.name}": feature ${feature}: expected a list of at most ${MAX_TOKENS} pairs of a finite activation and a token: got another value`,
      );
    }
    return tokens.reduce((most, [value]) => Math.max(most, value), 0);
  });
}

function isTopToken(json: unknown): json is TopToken {
  return Array.isArray(json) && json.length === 2 &&
    Number.isFinite(Math.fround(json[0])) && typeof json[0] === "number" &&
    typeof json[1] === "string";
}

/**
 * Which features never fire by a `dead_features_{n}.csv`: 1 where one is dead, `[d_sae]`.
 * @throws {SyntaxError} If it is no column of `True` and `False`: names the row.
 * @throws {RangeError} If it is of another number of features.
 */
export async function readOcsDead(
  source: Source,
  d_sae: number,
): Promise<Uint8Array> {
  const dead = new Uint8Array(d_sae);
  let n = 0;
  for await (const { fields, number } of readCsv(source)) {
    if (number === 1 && fields.join() === "0") continue;
    const [value] = fields;
    const isTruth = number > 1 && fields.length === 1 &&
      (value === "True" || value === "False");
    if (!isTruth) {
      throw new SyntaxError(
        `Cannot read "${source.name}" row ${number}: expected one column with the heading 0 and True or False in each row: got ${
          JSON.stringify(fields.join().slice(0, 40))
        }`,
      );
    }
    if (n < d_sae) dead[n] = value === "True" ? 1 : 0;
    n++;
  }
  checkCount(source, n, d_sae);
  return dead;
}

function checkCount({ name }: Source, n: number, d_sae: number): void {
  if (n === d_sae) return;
  throw new RangeError(
    `Cannot read "${name}": expected ${d_sae} features, as the SAE has: got ${n}: is it of another SAE?`,
  );
}
