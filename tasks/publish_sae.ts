/**
 * `publish-sae`: an SAE with its card for the Hugging Face hub: `./ocs publish-sae me/olmo-sae --sae out/sae`.
 * @module
 */
// deno-lint-ignore-file no-console
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { DEFAULT_REVISION, parseHubAddress } from "../core/hub_cache.ts";
import { parseEndpoint } from "../core/hub_client.ts";
import { REAL_TIME } from "../core/retry.ts";
import { openSae, runTask, type TaskContext, type TaskSpec } from "./cli.ts";
import { variable } from "./environment.ts";
import { formatBytes, formatTable } from "./format.ts";
import { CARD_FILE, publish } from "./hub_publish.ts";
import { readToken } from "./hub_access.ts";
import {
  type CardFacts,
  collectionCard,
  isMadeCard,
  modelCard,
} from "./model_card.ts";
import { readSaeToPublish } from "./publish_files.ts";

const FLAGS = {
  repo: {
    type: "string",
    required: true,
    help: "owner/name of the repository; it is made where there is none",
  },
  sae: {
    type: "string",
    required: true,
    help: "folder of the SAE, as train and convert write it",
  },
  folder: {
    type: "string",
    help: "folder of the repository, for one that holds several SAEs",
  },
  revision: {
    default: DEFAULT_REVISION,
    help: "branch; it is made where there is none",
  },
  private: { default: false, help: "make the repository private" },
  license: { default: "mit", help: "id of a license, as the hub has it" },
  dry_run: {
    default: false,
    help: "print the files and the card, and send nothing",
  },
  attempts: {
    default: 6,
    integer: true,
    min: 1,
    max: 100,
    help: "failures of a request in a row after which it is given up",
  },
} as const satisfies FlagTable;

/** Values of the flags. */
export type PublishFlags = ConfigOf<typeof FLAGS>;

/** The task, for the command line and for tests. */
export const PUBLISH_SAE: TaskSpec<typeof FLAGS> = {
  name: "publish-sae",
  description:
    "Uploads an SAE with its model card to the Hugging Face hub in one commit; a token with write access is taken from HF_TOKEN.",
  flags: FLAGS,
  positionals: ["repo"],
  afterInterrupt:
    "nothing is published: run the same command again, and what has arrived is not sent again",
};

/** Checks, shows or publishes, as the flags say. */
export async function publishTask(
  flags: PublishFlags,
  context: TaskContext,
): Promise<void> {
  const { id, folder } = placeOf(flags);
  const sae = await openSae(flags.sae);
  using checks = context.progress({
    label: "check",
    unit: "features",
    total: sae.d_sae,
  });
  const { files, facts } = await readSaeToPublish(sae, {
    signal: context.signal,
    onChecked: (n) => checks.update(n),
  });
  checks.end();
  const told: CardFacts = { ...facts, id, folder, license: flags.license };
  const prefix = folder === "" ? "" : `${folder}/`;
  const sent = new Map<string, Blob>(
    [...files].map(([name, blob]) => [prefix + name, blob]),
  );
  const card = modelCard(told);
  if (folder !== "") sent.set(prefix + CARD_FILE, new Blob([card]));
  if (flags.dry_run) {
    const shown = new Map(sent).set(prefix + CARD_FILE, new Blob([card]));
    return show(shown, card);
  }
  const token = await readToken();
  if (token === undefined) {
    throw new Error(
      `Cannot publish to "${id}": expected a token with write access in HF_TOKEN: got none: make one at https://huggingface.co/settings/tokens, or see what would be sent with --dry-run`,
    );
  }
  const commit = await send(flags, { id, token, files: sent, told }, context);
  const at = flags.revision === DEFAULT_REVISION ? "" : ` at ${flags.revision}`;
  console.log(
    `${id}${
      folder && `/${folder}`
    }${at}: ${sent.size} files in commit ${commit}`,
  );
}

interface Sending {
  readonly id: string;
  readonly token: string;
  readonly files: ReadonlyMap<string, Blob>;
  readonly told: CardFacts;
}

async function send(
  flags: PublishFlags,
  { id, token, files, told }: Sending,
  { signal, progress, note }: TaskContext,
): Promise<string> {
  const total = files.values().reduce((sum, { size }) => sum + size, 0);
  using bar = progress({ label: "publish", unit: "MB", total: total / 1e6 });
  let [nSent, phase] = [0, ""];
  const update = (): void => bar.update(nSent / 1e6, phase);
  const commit = await publish({
    endpoint: parseEndpoint(
      variable("HF_ENDPOINT") ?? "https://huggingface.co",
    ),
    ...{ id, token, files, signal },
    branch: flags.revision,
    isPrivate: flags.private,
    title: `Add an SAE of ${told.hookPoint} with ${told.d_sae} features`,
    card(existing): string | undefined {
      const made = told.folder === "" ? modelCard(told) : collectionCard(told);
      if (existing === undefined) return made;
      if (isMadeCard(existing)) return told.folder === "" ? made : undefined;
      note(`${CARD_FILE} of ${id} is left as it is: somebody wrote it`);
      return undefined;
    },
    retries: { ...REAL_TIME, nAttempts: flags.attempts },
    onSent(n): void {
      nSent += n;
      update();
    },
    onPhase(text): void {
      phase = text;
      update();
    },
  });
  bar.end();
  return commit;
}

/** The repository and the folder, checked. */
function placeOf(
  { repo, folder = "", revision, license }: PublishFlags,
): { id: string; folder: string } {
  const refuse = (what: string, got: string, expected: string): TypeError =>
    new TypeError(
      `Cannot publish with ${what} ${
        JSON.stringify(got)
      }: expected ${expected}: got another form`,
    );
  const address = parseHubAddress(repo);
  if (!address || address.repo.id !== repo) {
    throw refuse("repository", repo, "owner/name, such as me/olmo-sae");
  }
  const inside = parseHubAddress(`${repo}/${folder}`);
  if (folder !== "" && inside?.folder !== folder) {
    throw refuse("--folder", folder, "a path inside the repository");
  }
  if (!parseHubAddress(`${repo}@${revision}`)) {
    throw refuse("--revision", revision, "a branch");
  }
  if (!/^[\w.+-]{1,64}$/.test(license)) {
    throw refuse("--license", license, "an id such as mit or apache-2.0");
  }
  return { id: repo, folder };
}

/** What would be sent. */
function show(files: ReadonlyMap<string, Blob>, card: string): void {
  const rows = [...files].map(([path, { size }]) => [path, formatBytes(size)]);
  const total = files.values().reduce((sum, { size }) => sum + size, 0);
  console.log(formatTable(["file", "size"], rows));
  console.log(`${files.size} files, ${formatBytes(total)}\n\n${card}`);
}

if (import.meta.main) await runTask(PUBLISH_SAE, publishTask);
