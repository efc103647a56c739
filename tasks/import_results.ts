/**
 * `export --from`: labels and largest activations that other tools found, for the folder of an SAE.
 * @module
 */
// deno-lint-ignore-file no-console
import { basename, join } from "node:path";
import { directory, writeAtomic } from "../core/files.ts";
import { hookPlace } from "../core/hook_point.ts";
import type { SaeFile } from "../core/sae_file.ts";
import { saveFeatureMax } from "../core/sae_save.ts";
import type { Folder, Source } from "../core/source.ts";
import { ImportedLabels } from "../steer/imported_labels.ts";
import { readLabels, writeLabels } from "../steer/labels.ts";
import { readNeuronpediaExplanations } from "../steer/neuronpedia_labels.ts";
import {
  readOcsDead,
  readOcsFeatureMax,
  readOcsLabels,
} from "../steer/ocs_results.ts";
import { openPath, openSae, userPath } from "./cli.ts";
import { formatCount } from "./format.ts";
import { isFolder } from "./hub_folder.ts";

interface ImportFlags {
  readonly sae: string | undefined;
  readonly layer: number | undefined;
  readonly replace: boolean;
}

/** The kinds of files that are read, by their names. */
const KINDS = {
  explanations: /^batch-\d+\.jsonl(\.gz)?$/,
  labels: /^feature_labels.*\.csv$/,
  topTokens: /^top_tokens.*\.json$/,
  dead: /^dead_features.*\.csv$/,
} as const;

/** What was read, checked. */
interface Imported {
  readonly labels: ImportedLabels;
  readonly featureMax: Float32Array | undefined;
}

/** Reads everything, and only then writes `labels.json` and `feature_max.safetensors`. */
export async function importResults(
  from: string,
  flags: ImportFlags,
): Promise<void> {
  if (flags.sae === undefined) {
    throw new TypeError(
      "Cannot import: expected --sae, the SAE whose features they are: got none",
    );
  }
  const sae = await openSae(flags.sae, flags.layer);
  if (!sae.beside) {
    throw new Error(
      `Cannot import: expected an SAE in a folder of its own: got "${sae.weightsFile.name}", beside other weights that the labels would be taken for: move it to a folder of its own`,
    );
  }
  const { labels, featureMax } = await readResults(from, sae);
  const own = await readLabels(sae.beside, sae.d_sae);
  const merged = flags.replace
    ? new Map([...own, ...labels.labels])
    : new Map([...labels.labels, ...own]);
  const write = (
    file: string,
    content: string | Uint8Array | AsyncIterable<Uint8Array>,
  ): Promise<unknown> => writeAtomic(join(sae.name, file), content);
  const known = await sae.featureMax();
  if (labels.labels.size > 0) await writeLabels(write, merged);
  if (featureMax && (!known || flags.replace)) {
    await saveFeatureMax(write, featureMax);
  }
  const nKept = [...own.keys()].filter((i) => labels.labels.has(i)).length;
  console.log(
    `${formatCount(labels.labels.size)} labels for "${sae.name}"${
      nKept === 0
        ? ""
        : `, ${formatCount(nKept)} of them ${
          flags.replace ? "in place of" : "left out for"
        } its own`
    }; ${formatCount(labels.nLeftOut)} rows without one`,
  );
  if (!featureMax) return;
  console.log(
    known && !flags.replace
      ? "largest activations left as they are: --replace takes these"
      : `largest activations of ${formatCount(featureMax.length)} features, ${
        formatCount(featureMax.filter((max) => max === 0).length)
      } of which never fire: --steer FEATURE=2x works`,
  );
}

async function readResults(from: string, sae: SaeFile): Promise<Imported> {
  const files = await filesOf(from);
  const of = (kind: keyof typeof KINDS): Source[] =>
    files.filter(({ name }) => KINDS[kind].test(basename(name)));
  const labels = new ImportedLabels(sae.d_sae);
  const { hookPoint } = sae.metadata;
  const layer = hookPoint && hookPlace(hookPoint).layer;
  for (const file of of("explanations")) {
    await readNeuronpediaExplanations(file, labels, layer);
  }
  for (const file of of("labels")) await readOcsLabels(file, labels);
  const topTokens = one(from, of("topTokens"));
  const dead = one(from, of("dead"));
  if (dead && !topTokens) {
    throw new Error(
      `Cannot import "${dead.name}": expected top_tokens of the same run beside it: got none: dead features alone are not kept`,
    );
  }
  const featureMax = topTokens &&
    await readOcsFeatureMax(topTokens, sae.d_sae);
  if (dead && featureMax) {
    const isDead = await readOcsDead(dead, sae.d_sae);
    const wrong = featureMax.findIndex((max, i) => isDead[i] === 1 && max > 0);
    if (wrong >= 0) {
      throw new RangeError(
        `Cannot import "${dead.name}": expected no activation of dead features: got ${
          featureMax[wrong]
        } of feature ${wrong} in "${topTokens!.name}": are they of two runs?`,
      );
    }
  }
  return { labels, featureMax };
}

/** The files that are read of a folder, Neuronpedia's `explanations` in it, or the one file. */
async function filesOf(from: string): Promise<Source[]> {
  const path = userPath(from);
  const inner = join(path, "explanations");
  const opened = await openPath(from);
  const isKnown = (name: string): boolean =>
    Object.values(KINDS).some((form) => form.test(basename(name)));
  const files: Source[] = [];
  const take = async (folder: Folder): Promise<void> => {
    for (const name of await folder.list()) {
      if (isKnown(name)) files.push(await folder.open(name));
    }
  };
  if (!("list" in opened)) {
    if (isKnown(opened.name)) files.push(opened);
  } else {
    await take(opened);
    if (isFolder(inner)) await take(directory(inner));
  }
  if (files.length > 0) return files;
  throw new Error(
    `Cannot import "${path}": expected batch-N.jsonl.gz of Neuronpedia's explanations, or feature_labels.csv, top_tokens_N.json or dead_features_N.csv of open-concept-steering: got none of these`,
  );
}

/** The only file of a kind, if there is one. */
function one(from: string, files: readonly Source[]): Source | undefined {
  if (files.length <= 1) return files[0];
  throw new Error(
    `Cannot import "${from}": expected one file of a kind: got ${
      files.map(({ name }) => basename(name)).join(", ")
    }: name one of these files`,
  );
}
