/**
 * Labels out of Neuronpedia's explanations: `batch-N.jsonl`, gzipped or not.
 * @module
 */
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";
import { gunzip } from "../core/gunzip.ts";
import type { Source } from "../core/source.ts";
import { chunksOf, readLines } from "../core/text_lines.ts";
import type { ImportedLabels } from "./imported_labels.ts";

/** A batch of 1,024 has a few MB, with embeddings. */
const MAX_BYTES = 256 * 2 ** 20;

const Explanation = z.object({
  layer: z.string(),
  index: z.union([z.string(), z.int()]),
  description: z.string(),
  typeName: z.string().nullish(),
  explanationModelName: z.string().nullish(),
  notes: z.string().nullish(),
});

/**
 * Adds the explanations of a file; of several of one feature the first counts.
 * @param maxBytes What the file may have once it is unpacked; 256 MiB without it.
 * @param layer Block of the SAE, which the explanations must be of; any where it is not known.
 * @throws {SyntaxError} If the file is no gzip though it is called so, or a line is no explanation: names the line and the field.
 * @throws {RangeError} If an explanation is of another layer or of no feature of the SAE, or the file is too large.
 */
export async function readNeuronpediaExplanations(
  source: Source,
  into: ImportedLabels,
  layer?: number,
  maxBytes = MAX_BYTES,
): Promise<void> {
  const { name } = source;
  const chunks = name.endsWith(".gz") ? gunzip(source) : chunksOf(source);
  const lines = readLines(source, limited(name, chunks, maxBytes));
  for await (const { isBlank, text, number } of lines) {
    if (isBlank) continue;
    const place = ` line ${number}`;
    const row = checkJson(Explanation, parse(text, name, place), name, place);
    const [of] = row.layer.split("-");
    if (layer !== undefined && of !== String(layer)) {
      throw new RangeError(
        `Cannot read "${name}"${place}: expected explanations of layer ${layer}, as the SAE's: got ${
          JSON.stringify(row.layer)
        }: is it of another SAE?`,
      );
    }
    const by = [row.typeName, row.explanationModelName].filter((text) => text);
    into.add(String(row.index), {
      label: row.description,
      source: row.notes ?? by.join(" "),
    }, `"${name}"${place}`);
  }
}

/** The same chunks, until they are more than a batch can have. */
async function* limited(
  name: string,
  chunks: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<Uint8Array> {
  let n = 0;
  for await (const chunk of chunks) {
    n += chunk.length;
    if (n > maxBytes) {
      throw new RangeError(
        `Cannot read "${name}": expected at most ${maxBytes} bytes, unpacked: got more`,
      );
    }
    yield chunk;
  }
}

function parse(text: string, name: string, place: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new SyntaxError(
      `Cannot read "${name}"${place}: expected JSON: got other text: fetch it again`,
      { cause },
    );
  }
}
