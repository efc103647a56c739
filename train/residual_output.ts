/**
 * The folder that residuals are collected or merged into: claimed for one task,
 * filled shard by shard, with a manifest after each.
 * @module
 */
import type { TextShard } from "../core/text_order.ts";
import {
  MANIFEST_FILE,
  manifestFile,
  manifestText,
  parseResidualManifest,
  type ResidualManifest,
  type ShardEntry,
  shardFile,
  taskName,
  taskOfFile,
} from "../core/residual_manifest.ts";
import { readJson } from "../core/source.ts";
import type { Store, WrittenFile } from "../core/store.ts";

/** What a claimed folder has of the run that goes on in it. */
export interface Claim extends AsyncDisposable {
  /** How far the run is; undefined where it begins. */
  readonly before: ResidualManifest | undefined;
}

/** Whose folder it is. */
export interface ClaimOptions {
  /** Fingerprint of the configuration; equal means the same run. */
  readonly fingerprint: string;
  /** The task among several that write into the folder. */
  readonly shard?: TextShard | undefined;
}

/**
 * Takes a folder for a task of a run until it is disposed of; call it after every other check of the input. What a
 * killed write left under a temporary name is removed, and nothing else is changed.
 * @throws {Error} If it holds another run or other files, or another process works on this task: names the folder and the fix.
 */
export async function claimResiduals(
  store: Store,
  options: ClaimOptions,
): Promise<Claim> {
  // A folder that is refused gets no lock either.
  await findBefore(store, options);
  const lock = await store.lock(taskName(options.shard));
  try {
    const before = await findBefore(store, options);
    for (const name of await store.list()) {
      if (isLeftover(name, options.shard)) await store.remove(name);
    }
    return { before, [Symbol.asyncDispose]: () => lock[Symbol.asyncDispose]() };
  } catch (error) {
    await lock[Symbol.asyncDispose]();
    throw error;
  }
}

/** Whether a task's write that was killed left this file. */
function isLeftover(name: string, shard: TextShard | undefined): boolean {
  if (!/^\..*\.tmp$/.test(name)) return false;
  const task = shard && taskName(shard);
  return task === undefined ||
    name.startsWith(`.shard_${task}_`) ||
    name.startsWith(`.manifest_${task}.json.`);
}

/**
 * The manifest that a run, or its task, has in the folder, if any.
 * @throws {Error} If the folder holds another run or other files: names the folder and the fix.
 */
export async function findBefore(
  store: Store,
  { fingerprint, shard }: ClaimOptions,
): Promise<ResidualManifest | undefined> {
  const refuse = (found: string): Error =>
    new Error(
      `Cannot write to "${store.name}": expected an empty folder or this residuals run: got ${found}: choose another folder with --out`,
    );
  const names = await store.list();
  const own = manifestFile(shard);
  let before: ResidualManifest | undefined;
  // One of several tasks looks at one of the others, too: all are of one run.
  const other = shard && names.find((name) => isManifestOf(name, shard.count));
  for (const name of new Set([own, other])) {
    if (name === undefined || !names.includes(name)) continue;
    const source = await store.open(name);
    const json = await readJson(source);
    const kind = typeof json === "object" && json !== null && "kind" in json
      ? json.kind
      : "unknown";
    if (kind !== "residuals") throw refuse(`a run of kind ${kind}`);
    const manifest = parseResidualManifest(json, source.name);
    if (manifest.fingerprint !== fingerprint) {
      throw refuse("a residuals run of another configuration");
    }
    if (name === own) before = manifest;
  }
  // Shards are written before the manifest that lists them, and merging adds a manifest of all.
  const isOurs = (name: string): boolean =>
    name.startsWith(".") || name === own ||
    (shard
      ? taskOfFile(name)?.count === shard.count ||
        (name === MANIFEST_FILE && before !== undefined)
      : before !== undefined);
  const foreign = names.find((name) => !isOurs(name));
  if (foreign === undefined) return before;
  const task = taskOfFile(foreign);
  throw refuse(
    task ? `the files of ${task.count} tasks` : `other files ("${foreign}")`,
  );
}

/** The text that is collected into a folder, by this or another task; undefined where nothing says it yet. */
export async function collectedText(store: Store): Promise<string | undefined> {
  const name = (await store.list()).find((name) =>
    name === MANIFEST_FILE || (name.endsWith(".json") && taskOfFile(name))
  );
  if (name === undefined) return undefined;
  const source = await store.open(name);
  try {
    return parseResidualManifest(await readJson(source), source.name).text;
  } catch {
    return undefined; // what claims the folder says what is wrong
  }
}

function isManifestOf(name: string, count: number): boolean {
  return name.endsWith(".json") && taskOfFile(name)?.count === count;
}

/** Writes a manifest, whole or not at all. */
export async function writeManifest(
  store: Store,
  manifest: ResidualManifest,
): Promise<void> {
  await store.write(manifestFile(manifest.shard), manifestText(manifest));
}

/** A shard that is ready to be written. */
export interface ClosedShard extends Pick<ShardEntry, "n_rows" | "next"> {
  /** Documents that begin in it. */
  readonly n_documents: number;
  /** Writes the file under a name. */
  write(file: string): Promise<WrittenFile>;
}

/**
 * Shards on their way into a folder, with the manifest that lists them. They are written one after the other while the
 * caller goes on; a write that fails is told at the next call.
 */
export class ResidualOutput {
  readonly #store: Store;
  #manifest: ResidualManifest;
  #writing: Promise<void> = Promise.resolve();

  /** Goes on after the shards that a manifest lists. */
  constructor(store: Store, manifest: ResidualManifest) {
    this.#store = store;
    this.#manifest = manifest;
  }

  /** The manifest as it is in the folder. */
  get manifest(): ResidualManifest {
    return this.#manifest;
  }

  /** Begins to write a shard, when the one before it is written. */
  async add(shard: ClosedShard): Promise<void> {
    await this.#writing;
    this.#writing = this.#write(shard);
    // Told where it is awaited.
    this.#writing.catch(() => {});
  }

  /** Waits until all shards are written; whatever happened, nothing is written after it. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  /** Ends the collection. */
  async finish(): Promise<ResidualManifest> {
    await this.#writing;
    await this.#list({ ...this.#manifest, done: true });
    return this.#manifest;
  }

  async #write(
    { n_rows, n_documents, next, write }: ClosedShard,
  ): Promise<void> {
    const { shard, shards, ...counts } = this.#manifest;
    const file = shardFile(shard, shards.length);
    const { bytes, sha256 } = await write(file);
    const entry = { file, n_rows, bytes, sha256, ...(next && { next }) };
    await this.#list({
      ...this.#manifest,
      shards: [...shards, entry],
      n_tokens: counts.n_tokens + n_rows,
      n_documents: counts.n_documents + n_documents,
    });
  }

  async #list(manifest: ResidualManifest): Promise<void> {
    await writeManifest(this.#store, manifest);
    this.#manifest = manifest;
  }
}
