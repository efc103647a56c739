/**
 * Verifies residual folders: manifests against files, and every vector.
 * @module
 */
import { createHash } from "node:crypto";
import {
  MANIFEST_FILE,
  manifestFile,
  parseResidualManifest,
  type ResidualManifest,
  type ShardEntry,
  taskOfFile,
} from "../core/residual_manifest.ts";
import {
  openShard,
  type ResidualFacts,
  ResidualFolder,
  type ResidualRows,
  type ResidualShard,
} from "../core/residuals.ts";
import { type Folder, readJson } from "../core/source.ts";

/** How a check is followed and stopped. */
export interface CheckOptions {
  /** Called with what was read: bytes so far, and all that are going to be. */
  readonly onProgress?: (bytes: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** What {@link checkResiduals} found. */
export interface CheckResult {
  /** One line each; none in a folder that is as it should be. */
  readonly faults: readonly string[];
  /** Shards that were read, and what they hold by the manifests. */
  readonly nShards: number;
  readonly nTokens: number;
  readonly bytes: number;
  /** Whether there is a manifest; without one only the vectors can be checked. */
  readonly hasManifest: boolean;
}

/** What a shard must agree with. */
type Expected = ResidualFacts & Partial<Pick<ResidualManifest, "skipTokens">>;

/** A shard that is going to be checked. */
interface Claim {
  readonly entry: ShardEntry;
  readonly expected: Expected;
}

/** Missing tasks that are told. */
const MOST_MISSING = 100;

/** Bytes that are hashed at once. */
const CHUNK_BYTES = 8 * 2 ** 20;

/**
 * Reads a folder to its last byte. Faults of the data are in the result; what keeps it from being looked at is thrown.
 * @throws {Error} If it holds neither a manifest nor residuals, or cannot be listed.
 */
export async function checkResiduals(
  folder: Folder,
  options: CheckOptions = {},
): Promise<CheckResult> {
  const faults: string[] = [];
  const names = await folder.list();
  const manifests = await readManifests(folder, names, faults);
  const whole = manifests.get(MANIFEST_FILE);
  const tasks = [...manifests.values()].filter(({ shard }) => shard);
  const hasManifest = names.some((name) => isManifestFile(name));
  const claims = whole
    ? claimsOf(whole)
    : hasManifest
    ? tasks.flatMap(claimsOf)
    : claimsOf((await ResidualFolder.open(folder)).manifest);
  if (whole) faults.push(...faultsOfMerge(whole, tasks));
  else if (hasManifest && tasks.length > 0) {
    faults.push(...faultsOfTasks(folder, tasks));
  }
  // What a manifest that cannot be read lists is not to be removed.
  const areKnown = names.filter(isManifestFile).length === manifests.size;
  if (areKnown) faults.push(...leftovers(names, claims, hasManifest));
  const total = claims.reduce((sum, { entry }) => sum + entry.bytes, 0);
  let bytes = 0;
  for (const { entry, expected } of claims) {
    options.signal?.throwIfAborted();
    for await (
      const fault of faultsOfShard(folder, entry, expected, options.signal)
    ) {
      faults.push(fault);
    }
    bytes += entry.bytes;
    options.onProgress?.(bytes, total);
  }
  return {
    faults,
    nShards: claims.length,
    nTokens: claims.reduce((sum, { entry }) => sum + entry.n_rows, 0),
    bytes: total,
    hasManifest,
  };
}

function isManifestFile(name: string): boolean {
  return name === MANIFEST_FILE ||
    (name.endsWith(".json") && taskOfFile(name) !== undefined);
}

function claimsOf(expected: Expected): Claim[] {
  return expected.shards.map((entry) => ({ entry, expected }));
}

/** The manifests that can be read; those that cannot, or are not complete, are faults. */
async function readManifests(
  folder: Folder,
  names: readonly string[],
  faults: string[],
): Promise<Map<string, ResidualManifest>> {
  const manifests = new Map<string, ResidualManifest>();
  for (const name of names.filter(isManifestFile)) {
    try {
      const source = await folder.open(name);
      const json = await readJson(source);
      const manifest = parseResidualManifest(json, source.name);
      const expected = manifestFile(manifest.shard);
      if (expected !== name) {
        faults.push(
          `"${source.name}": expected the name ${expected} by what it says: got ${name}`,
        );
      }
      if (!manifest.done) {
        faults.push(
          `"${source.name}": expected a complete collection: got ${manifest.n_tokens} vectors so far: run the same collect again`,
        );
      }
      manifests.set(name, manifest);
    } catch (error) {
      faults.push(lineOf(error));
    }
  }
  return manifests;
}

/** Where a merged manifest and those of its tasks disagree. */
function faultsOfMerge(
  whole: ResidualManifest,
  tasks: readonly ResidualManifest[],
): string[] {
  const files = new Map(whole.shards.map((entry) => [entry.file, entry]));
  return tasks.flatMap(({ shard, shards }) =>
    shards.filter(({ file, sha256 }) => files.get(file)?.sha256 !== sha256)
      .map(({ file }) =>
        `"${MANIFEST_FILE}": expected "${file}" as ${
          manifestFile(shard)
        } has it: got ${
          files.has(file) ? "another SHA-256" : "none"
        }: run ./ocs data merge again`
      )
  );
}

/** What is missing for a merge. */
function faultsOfTasks(
  folder: Folder,
  tasks: readonly ResidualManifest[],
): string[] {
  const count = tasks[0]!.shard!.count;
  const there = new Set(tasks.map(({ shard }) => shard!.index));
  const missing: number[] = [];
  // A false count must not claim memory.
  for (let index = 0; index < count && missing.length < MOST_MISSING; index++) {
    if (!there.has(index)) missing.push(index);
  }
  return [
    ...missing.map((index) =>
      `"${folder.name}": expected ${
        manifestFile({ index, count })
      }: got none: run task ${index}`
    ),
    ...(missing.length === 0
      ? [
        `"${folder.name}": expected ${MANIFEST_FILE}: got none: run ./ocs data merge`,
      ]
      : []),
  ];
}

/** Files that no manifest knows. Other names that begin with a point belong to the system, or to locks. */
function leftovers(
  names: readonly string[],
  claims: readonly Claim[],
  hasManifest: boolean,
): string[] {
  const known = new Set(claims.map(({ entry }) => entry.file));
  const isLeft = (name: string): boolean => {
    if (known.has(name) || isManifestFile(name)) return false;
    if (name.startsWith(".")) return name.endsWith(".tmp");
    return hasManifest;
  };
  return names.filter(isLeft).map((name) =>
    `"${name}": expected only what the manifest lists: got a file more: remove it, or run the same collect again`
  );
}

async function* faultsOfShard(
  folder: Folder,
  entry: ShardEntry,
  expected: Expected,
  signal: AbortSignal | undefined,
): AsyncGenerator<string> {
  let shard: ResidualShard;
  try {
    const sha256 = entry.sha256 && await hashOf(folder, entry.file, signal);
    if (sha256 !== entry.sha256) {
      yield `Cannot trust "${entry.file}": expected SHA-256 ${entry.sha256} by its manifest: got ${sha256}: collect it again`;
    }
    shard = await openShard(folder, expected, entry);
  } catch (error) {
    signal?.throwIfAborted();
    yield lineOf(error);
    return;
  }
  let document = 0;
  for (const group of shard.rowGroups.keys()) {
    signal?.throwIfAborted();
    try {
      const rows = await shard.read(group);
      const fault = labelFault(rows, expected, document);
      document = rows.documents?.at(-1) ?? 0;
      if (fault) {
        yield `Cannot trust "${shard.name}": row ${
          shard.rowGroups[group]!.start + fault.row
        }: expected ${fault.expected}: got ${fault.got}: collect it again`;
      }
    } catch (error) {
      yield lineOf(error);
    }
  }
}

interface LabelFault {
  readonly row: number;
  readonly expected: string;
  readonly got: number;
}

/** The first row whose labels cannot be, if any. Documents follow one another within a shard. */
function labelFault(
  { n_rows, d_model, token_ids, positions, documents }: ResidualRows,
  { model, contextLength = Infinity, skipTokens = [] }: Expected,
  documentBefore: number,
): LabelFault | undefined {
  if (d_model !== model.d_model) {
    return { row: 0, expected: `${model.d_model} values`, got: d_model };
  }
  const skipped = new Set(skipTokens);
  let least = documentBefore;
  if (!token_ids || !positions || !documents) return undefined;
  for (let row = 0; row < n_rows; row++) {
    const fault = (expected: string, got: number): LabelFault => {
      return { row, expected, got };
    };
    const token = token_ids[row]!;
    if (token < 0 || skipped.has(token)) {
      return fault("a token that was not left out", token);
    }
    const position = positions[row]!;
    if (position < 0 || position >= contextLength) {
      return fault(`a position from 0 to ${contextLength - 1}`, position);
    }
    const document = documents[row]!;
    if (document < least) {
      return fault(`document ${least} or a later one`, document);
    }
    least = document;
  }
  return undefined;
}

async function hashOf(
  folder: Folder,
  file: string,
  signal: AbortSignal | undefined,
): Promise<string> {
  const source = await folder.open(file);
  const hash = createHash("sha256");
  for (let start = 0; start < source.byteLength; start += CHUNK_BYTES) {
    signal?.throwIfAborted();
    const end = Math.min(start + CHUNK_BYTES, source.byteLength);
    hash.update(await source.read(start, end));
  }
  return hash.digest("hex");
}

function lineOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/\s+/g, " ");
}
