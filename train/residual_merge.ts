/**
 * Makes one residual folder of several: of what the tasks of one collection
 * wrote side by side, or of collections of different texts.
 * @module
 */
import {
  MANIFEST_FILE,
  manifestFile,
  parseResidualManifest,
  type ResidualManifest,
  type ShardEntry,
  taskName,
  taskOfFile,
} from "../core/residual_manifest.ts";
import { type Folder, readJson } from "../core/source.ts";
import type { Store } from "../core/store.ts";
import {
  claimResiduals,
  ResidualOutput,
  writeManifest,
} from "./residual_output.ts";

/**
 * Writes the manifest of a whole collection out of those of its tasks. No shard is touched, so that it can be done again.
 * @throws {Error} If a task is missing or not done, or they are not of one collection: names it.
 */
export async function mergeTasks(store: Store): Promise<ResidualManifest> {
  const names = new Set(await store.list());
  const tasks = await readTasks(store, names);
  const merged = joined(store.name, tasks, [...tasks.keys()].map(String));
  const other = tasks.find(({ fingerprint }) =>
    fingerprint !== merged.fingerprint
  );
  if (other) {
    throw refusal(
      store,
      "tasks of one configuration",
      `another one of task ${other.shard?.index}`,
      "collect it again into another folder",
    );
  }
  const shards = tasks.flatMap(({ shards }) => shards);
  const lost = shards.find(({ file }) => !names.has(file));
  if (lost) throw refusal(store, `"${lost.file}"`, "none", "collect it again");
  if (shards.length === 0) {
    const fix = "collect a longer text";
    throw refusal(store, "vectors", "none in any task", fix);
  }
  await using _claim = await store.lock(taskName(undefined));
  const whole = {
    ...merged,
    shards,
    n_tokens: sum(tasks, "n_tokens"),
    n_documents: sum(tasks, "n_documents"),
    done: true,
  };
  await writeManifest(store, whole);
  return whole;
}

/** The manifests of all tasks, in their order. */
async function readTasks(
  store: Store,
  names: ReadonlySet<string>,
): Promise<ResidualManifest[]> {
  const files = [...names].filter((name) => name.endsWith(".json"));
  const counts = new Set(
    files.flatMap((name) => taskOfFile(name)?.count ?? []),
  );
  const [count] = counts;
  if (count === undefined || counts.size > 1) {
    throw refusal(
      store,
      "manifests of the tasks of one collection",
      count === undefined
        ? "none"
        : `those of ${[...counts].join(" and of ")} tasks`,
      "name the folder that tasks with --shard i/n have written",
    );
  }
  const tasks: ResidualManifest[] = [];
  for (let index = 0; index < count; index++) {
    const file = manifestFile({ index, count });
    const fix = `run collect with --shard ${index}/${count}`;
    if (!names.has(file)) throw refusal(store, file, "none", fix);
    const manifest = await readManifest(store, file);
    if (manifestFile(manifest.shard) !== file) {
      const got = manifestFile(manifest.shard);
      throw refusal(store, `${file} of its task`, `a copy of ${got}`, fix);
    }
    if (!manifest.done) {
      const got = `${manifest.n_tokens} vectors so far`;
      throw refusal(store, `task ${index} of ${count} to be done`, got, fix);
    }
    tasks.push(manifest);
  }
  return tasks;
}

function refusal(
  { name }: Store,
  expected: string,
  got: string,
  fix: string,
): Error {
  return new Error(
    `Cannot merge "${name}": expected ${expected}: got ${got}: ${fix}`,
  );
}

/** How {@link joinFolders} is followed and stopped. */
export interface JoinOptions {
  /** Fingerprint of the new folder, made of those that it is made of. */
  readonly fingerprint: string;
  /** Called with the bytes copied so far. */
  readonly onProgress?: (bytes: number) => void;
  /** Stops between two shards; the same call goes on. */
  readonly signal?: AbortSignal;
}

/**
 * Copies the shards of several folders into a new one. Every copy is compared with the SHA-256 of its manifest.
 * @throws {Error} If a folder is not complete, has a shard of another, or they differ in what vectors must have in common: says in what.
 */
export async function joinFolders(
  folders: readonly Folder[],
  store: Store,
  { fingerprint, onProgress, signal }: JoinOptions,
): Promise<ResidualManifest> {
  const manifests = await Promise.all(folders.map(openWhole));
  const names = folders.map(({ name }) => name);
  const begun = { ...joined(store.name, manifests, names), fingerprint };
  refuseRepeated(manifests, names);
  await using claim = await claimResiduals(store, { fingerprint });
  if (claim.before?.done) return claim.before;
  const output = new ResidualOutput(store, claim.before ?? begun);
  if (!claim.before) await writeManifest(store, begun);
  const entries = manifests.flatMap((manifest, i) =>
    manifest.shards.map((entry, n) => ({
      folder: folders[i]!,
      entry,
      // All of a folder's documents count with its first shard.
      n_documents: n === 0 ? manifest.n_documents : 0,
    }))
  );
  let bytes = 0;
  for (const [n, { folder, entry, n_documents }] of entries.entries()) {
    bytes += entry.bytes;
    if (n < output.manifest.shards.length) continue;
    signal?.throwIfAborted();
    await output.add({
      n_rows: entry.n_rows,
      n_documents,
      write: (file) => copyShard(folder, entry, store, file),
    });
    await output.settled();
    onProgress?.(bytes);
  }
  return await output.finish();
}

/** Refuses folders of which one has a shard of another, or is there twice: its vectors would be, too. */
function refuseRepeated(
  manifests: readonly ResidualManifest[],
  names: readonly string[],
): void {
  const folderOf = new Map<string | undefined, number>();
  for (const [i, { shards }] of manifests.entries()) {
    for (const { file, sha256 } of shards) {
      const other = folderOf.get(sha256) ?? i;
      if (other !== i) {
        throw new Error(
          `Cannot merge "${
            names[i]
          }": expected shards that no other folder has: got "${file}", which is in "${
            names[other]
          }" too: name each folder once`,
        );
      }
      folderOf.set(sha256, i);
    }
  }
}

/** The manifest of a folder that can be joined. */
export async function openWhole(folder: Folder): Promise<ResidualManifest> {
  if (!await folder.has(MANIFEST_FILE)) {
    throw new Error(
      `Cannot merge "${folder.name}": expected ${MANIFEST_FILE}: got none: where tasks have written the folder, run ./ocs data merge on it first`,
    );
  }
  const manifest = await readManifest(folder, MANIFEST_FILE);
  if (manifest.done) return manifest;
  throw new Error(
    `Cannot merge "${folder.name}": expected a complete collection: got ${manifest.n_tokens} vectors so far: run the same collect again`,
  );
}

async function readManifest(
  folder: Folder,
  file: string,
): Promise<ResidualManifest> {
  const source = await folder.open(file);
  return parseResidualManifest(await readJson(source), source.name);
}

/** Bytes that are copied at once. */
const CHUNK_BYTES = 8 * 2 ** 20;

async function copyShard(
  folder: Folder,
  entry: ShardEntry,
  store: Store,
  file: string,
): ReturnType<Store["write"]> {
  const source = await folder.open(entry.file);
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    for (let start = 0; start < source.byteLength; start += CHUNK_BYTES) {
      const end = Math.min(start + CHUNK_BYTES, source.byteLength);
      yield await source.read(start, end);
    }
  };
  const written = await store.write(file, chunks());
  if (written.sha256 === entry.sha256) return written;
  await store.remove(file);
  throw new Error(
    `Cannot merge "${source.name}": expected SHA-256 ${entry.sha256} by its manifest: got ${written.sha256}: collect it again`,
  );
}

/** What all vectors of a folder have in common. */
const SAME: readonly [string, (manifest: ResidualManifest) => unknown][] = [
  ["model", ({ model }) => `${model.name} (${model.fingerprint})`],
  ["hook point", ({ hookPoint }) => hookPoint],
  ["dtype", ({ dtype }) => dtype],
  ["d_model", ({ model }) => model.d_model],
  // Readers of whole folders take one schema.
  ["layout", ({ layout }) => layout],
];

/**
 * A manifest of all, without shards yet. Of what may differ, it says what holds for all of them.
 * @param names What errors call them.
 */
function joined(
  out: string,
  manifests: readonly ResidualManifest[],
  names: readonly string[],
): ResidualManifest {
  const [first] = manifests as [ResidualManifest];
  for (const [what, of] of SAME) {
    const other = manifests.findIndex((manifest) => of(manifest) !== of(first));
    if (other < 0) continue;
    throw new Error(
      `Cannot merge into "${out}": expected the same ${what}: got ${
        of(first)
      } in "${names[0]}" and ${of(manifests[other]!)} in "${names[other]}"`,
    );
  }
  const { shard: _, shuffle, ...common } = first;
  const isShuffled = manifests.every((other) => other.shuffle === shuffle);
  return {
    ...common,
    ...(isShuffled && shuffle !== undefined && { shuffle }),
    contextLength: Math.max(...manifests.map((m) => m.contextLength)),
    pack: manifests.some(({ pack }) => pack),
    separator: manifests.every(({ separator }) => separator),
    skipFirst: Math.min(...manifests.map(({ skipFirst }) => skipFirst)),
    skipTokens: first.skipTokens.filter((id) =>
      manifests.every(({ skipTokens }) => skipTokens.includes(id))
    ),
    text: [...new Set(manifests.map(({ text }) => text))].join(" + "),
    shards: [],
    n_tokens: 0,
    n_documents: 0,
    done: false,
  };
}

function sum(
  manifests: readonly ResidualManifest[],
  field: "n_tokens" | "n_documents",
): number {
  return manifests.reduce((total, manifest) => total + manifest[field], 0);
}
