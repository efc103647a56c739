/**
 * Finds features: `./ocs find baseball`, `./ocs find --feature 758`,
 * `./ocs find --text storybook:101:300 --out out/features`.
 * @module
 */
// deno-lint-ignore-file no-console
import { join } from "node:path";
import {
  claimOutputFolder,
  fingerprint,
  type Manifest,
  writeAtomic,
  writeManifest,
} from "../core/files.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { saveFeatureIndex } from "../steer/feature_index_file.ts";
import { labelledFeatures } from "../steer/labels.ts";
import { runTask, type TaskContext, userPath } from "./cli.ts";
import {
  describeExamples,
  describeFeature,
  describeIndex,
  describeLabelled,
  describeMatches,
  featureJson,
  type FeatureStyle,
} from "./find_report.ts";
import { Finder, FINDER_FLAGS } from "./finder.ts";
import { localStore } from "./local_store.ts";
import { checkText } from "./text_check.ts";

const FLAGS = {
  words: {
    type: "strings",
    help:
      "words of the concept, each looked up in the text; put a phrase in quotes",
  },
  example: {
    type: "strings",
    help: "a sentence or more about the concept",
  },
  against: {
    type: "strings",
    help: "text that is not about it, however close",
  },
  feature: {
    type: "number",
    integer: true,
    min: 0,
    help: "show this feature",
  },
  label: {
    type: "string",
    help: "show the features whose label has these words",
  },
  out: {
    type: "string",
    help: "write the index of the whole text to this folder",
  },
  limit: { default: 5, integer: true, min: 1, help: "features that are shown" },
  contexts: {
    default: 3,
    integer: true,
    min: 0,
    max: 10,
    help: "contexts that are shown of each feature; all with --feature",
  },
  json: { default: false, help: "print JSON" },
  ...FINDER_FLAGS,
} as const satisfies FlagTable;

type Flags = ConfigOf<typeof FLAGS>;

/** What is asked for. */
type Mode = "search" | "feature" | "label" | "index";

function modeOf(flags: Flags): Mode {
  const { words, example, against, feature, label, out } = flags;
  const asked: Mode[] = [];
  if (words.length + example.length + against.length > 0) asked.push("search");
  if (feature !== undefined) asked.push("feature");
  if (label !== undefined) asked.push("label");
  if (out !== undefined) asked.push("index");
  const [mode, second] = asked;
  if (mode !== undefined && second === undefined) return mode;
  throw new TypeError(
    `Cannot run find: expected words or --example, or --feature, or --label, or --out: got ${
      mode === undefined ? "none of them" : "several"
    }`,
  );
}

function styleOf(finder: Finder, flags: Flags): FeatureStyle {
  const isBold = Deno.stdout.isTerminal() && !Deno.noColor && !flags.json;
  return {
    tokenizer: finder.model.tokenizer,
    labels: finder.labels,
    nContexts: flags.feature === undefined ? flags.contexts : 10,
    marks: isBold ? ["\x1b[1m", "\x1b[22m"] : ["«", "»"],
  };
}

async function search(finder: Finder, flags: Flags): Promise<void> {
  const { words, example, against, limit, text } = flags;
  const query = { words, examples: example, against };
  const examples = await finder.examples(query);
  const matches = await finder.search(examples, limit);
  const index = await finder.index();
  const style = styleOf(finder, flags);
  if (!flags.json) {
    console.log(`${describeExamples(examples, text)}\n`);
    console.log(describeMatches(matches, index, style));
    return;
  }
  const report = {
    query: { ...query, text, found: Object.fromEntries(examples.nFound) },
    matches: matches.map(({ falseRate, ...match }) => ({
      ...match,
      false_rate: falseRate,
      ...featureJson(index.entry(match.feature), style),
    })),
  };
  console.log(JSON.stringify(report, null, 2));
}

async function showFeature(
  finder: Finder,
  feature: number,
  flags: Flags,
): Promise<void> {
  const { d_sae, name } = finder.sae;
  if (feature >= d_sae) {
    throw new RangeError(
      `Cannot show feature ${feature}: expected a feature from 0 to ${
        d_sae - 1
      }, as "${name}" has ${d_sae}`,
    );
  }
  const index = await finder.index();
  const entry = index.entry(feature);
  const style = styleOf(finder, flags);
  console.log(
    flags.json
      ? JSON.stringify(featureJson(entry, style), null, 2)
      : describeFeature(entry, index, style),
  );
}

/** Looks words up in the labels; of a saved index alone, so that it takes no GPU. */
async function showLabelled(
  finder: Finder,
  words: string,
  flags: Flags,
): Promise<void> {
  const features = labelledFeatures(finder.labels, words);
  const index = await finder.savedIndex();
  const style = styleOf(finder, flags);
  const shown = features.slice(0, flags.limit);
  if (flags.json) {
    const matches = shown.map((feature) => ({
      feature,
      ...finder.labels.get(feature),
      ...(index && featureJson(index.entry(feature), style)),
    }));
    console.log(JSON.stringify({ n: features.length, matches }, null, 2));
  } else {
    console.log(describeLabelled(shown, features.length, index, style));
  }
}

async function writeIndex(
  finder: Finder,
  out: string,
  flags: Flags,
  context: TaskContext,
): Promise<void> {
  const { text, documents = Infinity, limit } = flags;
  if (documents === Infinity && /^storybook:\d+$/.test(text)) {
    throw new RangeError(
      `Cannot index "${text}": expected an end: got a text without one: name storybook:SEED:N or --documents N`,
    );
  }
  // Before anything is written: a text that cannot be read, a GPU that is not there.
  await checkText(await finder.corpus(), documents, context);
  await finder.reader();
  const folder = userPath(out);
  const id: Manifest = {
    kind: "features",
    fingerprint: await fingerprint({
      ...finder.fingerprints,
      text,
      documents: flags.documents ?? null,
      context: finder.contextLength,
    }),
  };
  await using _lock = await (await localStore(folder)).lock("all");
  await claimOutputFolder(folder, id.kind, id.fingerprint);
  const index = await finder.makeIndex(documents);
  await saveFeatureIndex(
    (file, content) => writeAtomic(join(folder, file), content),
    index,
  );
  await writeManifest(folder, { ...id, ...index.header, done: true });
  const style = styleOf(finder, flags);
  console.log(
    flags.json
      ? JSON.stringify({ folder, ...index.header }, null, 2)
      : describeIndex(index, limit, style),
  );
}

async function find(flags: Flags, context: TaskContext): Promise<void> {
  const mode = modeOf(flags);
  const finder = await Finder.open(flags, context);
  if (mode === "search") await search(finder, flags);
  else if (mode === "feature") {
    await showFeature(finder, flags.feature!, flags);
  } else if (mode === "label") await showLabelled(finder, flags.label!, flags);
  else await writeIndex(finder, flags.out!, flags, context);
}

if (import.meta.main) {
  await runTask({
    name: "find",
    description:
      "Finds the features that tell a concept, by words or examples, and shows what they fire on.",
    flags: FLAGS,
    positionals: ["words"],
  }, find);
}
