/**
 * The card of an SAE on the hub: README.md with the front matter that the hub and SAELens read.
 * @module
 */
import { hookPlace, type HookPoint } from "../core/hook_point.ts";
import type { SaeMetadata } from "../core/sae_file.ts";
import { formatCount } from "./format.ts";

/** What a card tells. */
export interface CardFacts {
  /** `owner/name` of the repository. */
  readonly id: string;
  /** Folder of the SAE in it; "" for its root. */
  readonly folder: string;
  /** Id of a license, as the hub has it. */
  readonly license: string;
  readonly d_model: number;
  readonly d_sae: number;
  readonly hookPoint: HookPoint;
  readonly metadata: SaeMetadata;
  /** Measured on vectors that training held out; undefined where nothing was. */
  readonly heldOut: HeldOutMetrics | undefined;
  /** Features that fired on nothing that they were measured on; undefined where that is not known. */
  readonly nDead: number | undefined;
  /** Features that have a label. */
  readonly nLabels: number;
  /** Names of the files that are published with it. */
  readonly files: readonly string[];
}

/** What training measured at its end. */
export interface HeldOutMetrics {
  readonly nTokens: number;
  readonly fvu: number;
  readonly L0: number;
  readonly deadShare: number;
}

/** Stands in every card that is made, so that one which a person wrote is not written over. */
const MARK = "<!-- made by ocs publish-sae -->";

/** Whether a card is one of these, and may be made anew. */
export function isMadeCard(text: string): boolean {
  return text.includes(MARK);
}

/** The card of one SAE. */
export function modelCard(facts: CardFacts): string {
  const { id, folder, d_sae, hookPoint, metadata } = facts;
  const { modelName = "an OLMo-2 model" } = metadata;
  const name = folder === "" ? id.split("/")[1]! : folder;
  return [
    frontMatter(facts),
    MARK,
    `# ${name}`,
    `A sparse autoencoder (SAE) with ${formatCount(d_sae)} features for \`${
      plain(hookPoint)
    }\` of ${plain(modelName)}: ${placeOf(hookPoint)}`,
    table(["", ""], sizeRows(facts)),
    ...metricsPart(facts),
    ...recipePart(metadata),
    usePart(facts),
    `## Files\n\n${
      facts.files.map((file) => `- \`${plain(file)}\`${ABOUT[file] ?? ""}`)
        .join("\n")
    }`,
  ].join("\n\n") + "\n";
}

/** The card of a repository that holds SAEs in folders, of which this is the first. */
export function collectionCard(facts: CardFacts): string {
  return [
    frontMatter(facts),
    MARK,
    `# ${facts.id.split("/")[1]}`,
    "Sparse autoencoders (SAEs), each in a folder of its own with a README.md that tells what it is.",
  ].join("\n\n") + "\n";
}

function frontMatter({ license, metadata }: CardFacts): string {
  const { modelName = "" } = metadata;
  // Only a repository's id can be linked.
  const isRepo = /^[\w.-]+\/[\w.-]+$/.test(modelName);
  return [
    "---",
    "library_name: saelens",
    `license: ${JSON.stringify(license)}`,
    ...(isRepo ? [`base_model: ${JSON.stringify(modelName)}`] : []),
    "tags:",
    "- sae",
    "- sparse-autoencoder",
    "- interpretability",
    "- open-concept-steering",
    "---",
  ].join("\n");
}

function placeOf(hookPoint: HookPoint): string {
  const { site, layer } = hookPlace(hookPoint);
  return site === "resid_post"
    ? `the residual stream after block ${layer}, counted from 0 (\`blocks.${layer}.hook_resid_post\` in TransformerLens).`
    : `the model's final norm applied to the output of block ${layer}, counted from 0. TransformerLens has no name for this place.`;
}

function sizeRows({ d_model, d_sae, metadata }: CardFacts): string[][] {
  const { architecture, k, contextLength, text, inputScale } = metadata;
  const { nTokensTrained, modelFingerprint, convertedFrom: from } = metadata;
  const rows: (readonly [string, string | number | undefined])[] = [
    ["d_model", d_model],
    ["features (d_sae)", d_sae],
    [
      "architecture",
      k === undefined ? architecture : `${architecture}, k ${k}`,
    ],
    ["input scale in training", inputScale],
    ["vectors trained on", nTokensTrained && formatCount(nTokensTrained)],
    ["text", text],
    ["context", contextLength && `${contextLength} tokens`],
    ["fingerprint of the model", modelFingerprint],
    [
      "converted from",
      from && `weights of ${from.layout} with SHA-256 ${from.sha256}`,
    ],
  ];
  return rows.flatMap(([what, value]) =>
    value === undefined ? [] : [[what, String(value)]]
  );
}

function metricsPart({ heldOut, nDead, d_sae }: CardFacts): string[] {
  const rows: string[][] = [];
  if (heldOut) {
    const { nTokens, fvu, L0, deadShare } = heldOut;
    rows.push(
      ["fraction of variance unexplained (FVU)", fvu.toFixed(4)],
      ["features that fire on a vector (L0)", L0.toFixed(2)],
      ["features that fire on none of them", percent(deadShare)],
      ["vectors, held out of training", formatCount(nTokens)],
    );
  } else if (nDead !== undefined) {
    rows.push([
      "features that never fired in training",
      percent(nDead / d_sae),
    ]);
  }
  return rows.length === 0
    ? []
    : ["## Metrics", table(["measure", "value"], rows)];
}

function recipePart({ recipe }: SaeMetadata): string[] {
  if (!recipe) return [];
  return ["## Recipe", "```json\n" + JSON.stringify(recipe, null, 2) + "\n```"];
}

function usePart({ id, folder, nLabels }: CardFacts): string {
  const path = folder === "" ? "" : ` + "/${folder}"`;
  const address = folder === "" ? id : `${id}/${folder}`;
  const labels = nLabels === 0
    ? ""
    : ` ${formatCount(nLabels)} features have a label and can be named by it.`;
  return `## Use

With Open Concept Steering on Deno, to find features and to steer by them:

\`\`\`sh
./ocs download ${id}
./ocs chat --model MODEL --sae ${address} --steer FEATURE=2x
\`\`\`

The strength is in multiples of the feature's largest activation.${labels}

With SAELens 6:

\`\`\`python
from huggingface_hub import snapshot_download
from sae_lens import SAE

sae = SAE.load_from_disk(snapshot_download("${id}")${path})
\`\`\``;
}

/** What the files hold. */
const ABOUT: Readonly<Record<string, string>> = {
  "cfg.json": ": sizes, hook point, model and recipe",
  "sae_weights.safetensors": ": the weights, as SAELens 6 names them",
  "feature_max.safetensors": ": the largest activation of each feature",
  "sparsity.safetensors":
    ": log10 of the share of tokens on which each feature fires",
  "labels.json": ": what features are called",
  "features.jsonl": ": what features fire on, with pieces of the text",
  "metrics.jsonl": ": what training logged",
};

function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`;
}

function table(
  heading: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map(plain).join(" | ")} |`;
  return [line(heading), line(heading.map(() => "---")), ...rows.map(line)]
    .join("\n");
}

/** Text that stays in its place: one line without what Markdown or HTML reads as more. */
function plain(text: string): string {
  return text.replace(/[\s\p{Cc}]+/gu, " ").replace(/[|`<>]/g, " ");
}
