/**
 * The file of a feature index: JSON lines, the first of which says what the index
 * was made from; then one for each feature that fires.
 * @module
 */
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";
import type { SaeFile, WriteFile } from "../core/sae_file.ts";
import type { Folder, Source } from "../core/source.ts";
import { readLines } from "../core/text_lines.ts";
import {
  type FeatureEntry,
  FeatureIndex,
  type FeatureIndexHeader,
} from "./feature_index.ts";
import { isContext, TopContexts } from "./top_contexts.ts";

/** File of the index, in a folder of its own or in that of the SAE. */
export const FEATURES_FILE = "features.jsonl";

const MAX_D_SAE = 2 ** 24;
/** Entries that are written at once. */
const ENTRIES_PER_CHUNK = 256;

const count = z.int().min(0);

const Header: z.ZodType<FeatureIndexHeader & { formatVersion: 1 }> = z
  .strictObject({
    formatVersion: z.literal(1),
    modelFingerprint: z.string(),
    saeFingerprint: z.string(),
    text: z.string(),
    d_sae: z.int().min(1).max(MAX_D_SAE),
    nContexts: z.int().min(1).max(100),
    nDocuments: count,
    nTokens: count,
  });

const Entry: z.ZodType<FeatureEntry> = z.strictObject({
  feature: count,
  max: z.number().min(0),
  density: z.number().min(0).max(1),
  mean: z.number().min(0),
  contexts: z.array(
    z.strictObject({
      document: z.string(),
      position: count,
      activation: z.number(),
      start: count,
      ids: z.array(z.int().min(0).max(2 ** 32 - 1)),
      acts: z.array(z.number()),
    }).refine(isContext, "expected ids and acts around the position"),
  ),
});

/**
 * Tells one SAE from another: SHA-256, 16 hex digits, of its sizes, its biases and
 * the first decoder rows, without reading gigabytes.
 */
export async function saeFingerprint(sae: SaeFile): Promise<string> {
  const { d_model, d_sae } = sae;
  const bytes = new Uint8Array(
    await new Blob([
      JSON.stringify([d_model, d_sae]),
      await sae.b_enc(),
      await sae.b_dec(),
      await sae.rowsOfDecoder(0, Math.min(16, d_sae)),
    ]).arrayBuffer(),
  );
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return new Uint8Array(digest).toHex().slice(0, 16);
}

/** Writes an index, whole or not at all; activations are rounded to 6 digits. */
export async function saveFeatureIndex(
  write: WriteFile,
  index: FeatureIndex,
): Promise<void> {
  await write(FEATURES_FILE, chunks(index));
}

async function* chunks(index: FeatureIndex): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder();
  let lines = [JSON.stringify({ formatVersion: 1, ...index.header })];
  for (let feature = 0; feature < index.header.d_sae; feature++) {
    if (!(index.numbers.max[feature]! > 0)) continue;
    lines.push(JSON.stringify(index.entry(feature), rounded));
    if (lines.length < ENTRIES_PER_CHUNK) continue;
    yield encoder.encode(lines.join("\n") + "\n");
    lines = [];
  }
  if (lines.length > 0) yield encoder.encode(lines.join("\n") + "\n");
}

function rounded(_key: string, value: unknown): unknown {
  const isFraction = typeof value === "number" && !Number.isInteger(value);
  return isFraction ? Number(value.toPrecision(6)) : value;
}

/**
 * Reads an index and checks that it is of this model and SAE.
 * @throws {Error} If the folder has no index.
 * @throws {SyntaxError} If the file is damaged: names the line and the field.
 * @throws {RangeError} If it is of another model or SAE.
 */
export async function loadFeatureIndex(
  folder: Folder,
  of: Pick<
    FeatureIndexHeader,
    "modelFingerprint" | "saeFingerprint" | "d_sae"
  >,
): Promise<FeatureIndex> {
  const source = await folder.open(FEATURES_FILE);
  const lines = readLines(source);
  const first = await lines.next();
  const { formatVersion: _, ...header } = checkJson(
    Header,
    parseLine(source, first.value?.text ?? "", 1),
    source.name,
    " line 1",
  );
  const { modelFingerprint, saeFingerprint } = of;
  if (
    header.modelFingerprint !== modelFingerprint ||
    header.saeFingerprint !== saeFingerprint || header.d_sae !== of.d_sae
  ) {
    throw new RangeError(
      `Cannot use "${source.name}": expected an index of model ${modelFingerprint} and SAE ${saeFingerprint}: got one of ${header.modelFingerprint} and ${header.saeFingerprint}: make it anew with find --out`,
    );
  }
  const { d_sae, nContexts } = header;
  const numbers = {
    max: new Float32Array(d_sae),
    density: new Float32Array(d_sae),
    mean: new Float32Array(d_sae),
  };
  const top = new TopContexts(d_sae, nContexts);
  const documents = new Map<string, number>();
  for await (const { text, number } of lines) {
    const json = parseLine(source, text, number);
    const entry = checkJson(Entry, json, source.name, ` line ${number}`);
    const { feature, contexts } = entry;
    if (feature >= d_sae || contexts.length > nContexts) {
      throw new SyntaxError(
        `Cannot read "${source.name}" line ${number}: expected a feature below ${d_sae} with at most ${nContexts} contexts: got feature ${feature} with ${contexts.length}`,
      );
    }
    numbers.max[feature] = entry.max;
    numbers.density[feature] = entry.density;
    numbers.mean[feature] = entry.mean;
    for (const context of contexts) {
      const { document } = context;
      documents.set(document, documents.get(document) ?? documents.size);
      top.add(feature, documents.get(document)!, context);
    }
  }
  return new FeatureIndex(header, numbers, top);
}

function parseLine(source: Source, text: string, number: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new SyntaxError(
      `Cannot read "${source.name}" line ${number}: expected JSON: got ${
        text === "" ? "nothing" : "other text"
      }: make it anew with find --out`,
      { cause },
    );
  }
}
