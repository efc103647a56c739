/**
 * Which files a repository of the hub has, and which of them are wanted. What a server says is checked
 * before it becomes a path.
 * @module
 */
import { z } from "zod";
import {
  checkHubFileName,
  type HubRepo,
  notesFolder,
  snapshotPath,
} from "./hub_cache.ts";
import { checkJson } from "./check_json.ts";
import { type Folder, readJson } from "./source.ts";

/** A file of a repository. */
export interface HubFile {
  /** Name relative to the repository, with `/` between its parts. */
  readonly path: string;
  /** Length in bytes. */
  readonly size: number;
  /** What it holds, in hex: SHA-256 (64 digits) of large files, Git's SHA-1 (40 digits) of all others. Names the blob. */
  readonly hash: string;
}

/** All files of one commit. */
export interface HubListing {
  /** The commit, 40 hex digits. */
  readonly commit: string;
  readonly files: readonly HubFile[];
}

/** What is noted in the cache of a commit that is, or is being, downloaded. */
export interface HubNote extends HubListing {
  /** The revision that was asked for. */
  readonly revision: string;
  /** Names of the files that this and earlier downloads were asked for. */
  readonly wanted: readonly string[];
}

/** Which files are wanted. */
export interface FileChoice {
  /** Only files below this folder; "" for all. */
  readonly folder: string;
  /** Patterns as in {@link matchesGlob}; none means what tasks read. */
  readonly include: readonly string[];
  /** Patterns of files that are left out, whatever `include` says. */
  readonly exclude: readonly string[];
}

/** What tasks read of a model or an SAE, by the last part of the name. */
const READ_BY_TASKS = [
  ...["config.json", "generation_config.json", "chat_template.*"],
  ...["tokenizer*", "special_tokens_map.json", "added_tokens.json"],
  ...["vocab.json", "merges.txt", "*.safetensors"],
  ...["*.safetensors.index.json", "cfg.json", "sae_config.json"],
  ...["labels.json", "features.jsonl", "*.npz", "ae.pt", "sae_final.pt"],
];

/** The same weights again, for other programs. */
const DUPLICATES = ["original/*", "onnx/*", "consolidated*.safetensors"];

/**
 * Whether a name fits a pattern: `*` stands for anything, slashes too, `?` for one character,
 * `[abc]` or `[!abc]` for one of, or but for, some; a pattern that ends in `/` for all that is below.
 * As Python's `allow_patterns` has it.
 */
export function matchesGlob(pattern: string, name: string): boolean {
  const whole = pattern.endsWith("/") ? `${pattern}*` : pattern;
  // A match by hand, as a regular expression of many stars can take forever.
  const tokens = whole.match(/\[(?:!.|[^!])[^\]]*\]|[^]/gu) ?? [];
  const characters = [...name];
  let token = 0;
  let starToken = -1;
  let starAt = 0;
  for (let at = 0; at < characters.length;) {
    if (tokens[token] === "*") {
      starToken = token++;
      starAt = at;
    } else if (fitsToken(tokens[token], characters[at]!)) {
      token++;
      at++;
    } else if (starToken >= 0) {
      token = starToken + 1;
      at = ++starAt;
    } else return false;
  }
  return tokens.slice(token).every((rest) => rest === "*");
}

function fitsToken(token: string | undefined, character: string): boolean {
  if (token === undefined || token === "*") return false;
  if (token === "?") return true;
  if (token.length < 3 || !token.startsWith("[")) return token === character;
  const isNegated = token[1] === "!";
  const members = [...token.slice(isNegated ? 2 : 1, -1)];
  const isMember = members.some((member, i) =>
    member === "-" && i > 0 && i < members.length - 1
      ? members[i - 1]! <= character && character <= members[i + 1]!
      : member === character
  );
  return isMember !== isNegated;
}

/**
 * The wanted files of a listing, sorted by name and checked.
 * @throws {RangeError} If none is wanted, a name would lead out of its folder, or two cannot lie beside each other.
 */
export function chooseFiles(
  repo: HubRepo,
  listing: HubListing,
  choice: FileChoice,
): HubFile[] {
  const { folder, include, exclude } = choice;
  const isWanted = ({ path }: HubFile): boolean => {
    if (folder !== "" && !path.startsWith(`${folder}/`)) return false;
    if (exclude.some((pattern) => matchesGlob(pattern, path))) return false;
    if (include.length > 0) {
      return include.some((pattern) => matchesGlob(pattern, path));
    }
    return repo.type === "dataset" || isReadByTasks(path);
  };
  const files = listing.files.filter(isWanted).sort((a, b) =>
    a.path < b.path ? -1 : 1
  );
  if (files.length === 0) {
    throw new RangeError(
      `Cannot download "${repo.id}": expected files${
        folder === "" ? "" : ` in "${folder}"`
      } that ${
        include.length > 0
          ? "--include and --exclude leave"
          : "tasks read, such as config.json and *.safetensors"
      }: got none of ${listing.files.length}: name files with --include`,
    );
  }
  checkTogether(repo, files);
  return files;
}

/** Whether tasks read such a file of a model or an SAE, so that a download takes it unasked. */
export function isReadByTasks(path: string): boolean {
  const name = path.slice(path.lastIndexOf("/") + 1);
  return READ_BY_TASKS.some((pattern) => matchesGlob(pattern, name)) &&
    !DUPLICATES.some((pattern) => matchesGlob(pattern, path));
}

/** Throws unless all files can lie in one folder, on file systems that take A for a as well. */
function checkTogether(repo: HubRepo, files: readonly HubFile[]): void {
  const taken = new Map<string, string>();
  const refuse = (a: string, b: string): never => {
    throw new RangeError(
      `Cannot download "${repo.id}": expected names that can lie beside each other: got ${
        JSON.stringify(a)
      } and ${JSON.stringify(b)}: leave one out with --exclude`,
    );
  };
  const sizes = new Map<string, number>();
  const folded = (path: string): string => path.normalize("NFC").toLowerCase();
  for (const { path, size, hash } of files) {
    checkHubFileName(repo, path);
    const other = taken.get(folded(path));
    if (other !== undefined) refuse(other, path);
    taken.set(folded(path), path);
    if ((sizes.get(hash) ?? size) !== size) {
      throw new RangeError(
        `Cannot download "${repo.id}": expected one length of what has hash ${hash}: got ${size} bytes of ${
          JSON.stringify(path)
        } and ${sizes.get(hash)} of another file`,
      );
    }
    sizes.set(hash, size);
  }
  for (const { path } of files) {
    const parts = path.split("/");
    for (let n = 1; n < parts.length; n++) {
      const file = taken.get(folded(parts.slice(0, n).join("/")));
      if (file !== undefined) refuse(file, path);
    }
  }
}

const Commit = z.string().regex(/^[0-9a-f]{40}$/, "expected a commit");
/** No file has more than 16 TiB; a list of its ranges would fill the memory. */
const Size = z.int().min(0).max(2 ** 44);
const File = z.object({
  path: z.string(),
  size: Size,
  hash: z.string().regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/, "expected a hash"),
});
const Note = z.object({
  commit: Commit,
  revision: z.string(),
  files: z.array(File),
  wanted: z.array(z.string()),
});
const Answer = z.object({
  sha: Commit,
  siblings: z.array(
    z.object({
      rfilename: z.string(),
      size: Size,
      blobId: z.string().regex(/^[0-9a-f]{40}$/, "expected Git's SHA-1"),
      lfs: z.object({
        sha256: z.string().regex(/^[0-9a-f]{64}$/, "expected a SHA-256"),
        size: Size,
      }).nullish(),
    }),
  ),
});

/**
 * The files in the hub's answer about a revision.
 * @param url Where it came from, for errors.
 * @throws {SyntaxError} If the answer has another form.
 */
export function parseListing(json: unknown, url: string): HubListing {
  const { sha, siblings } = checkJson(Answer, json, url);
  return {
    commit: sha,
    files: siblings.map(({ rfilename, size, blobId, lfs }) => ({
      path: rfilename,
      size: lfs?.size ?? size,
      hash: lfs?.sha256 ?? blobId,
    })),
  };
}

/** The note on a commit in the cache; undefined where there is none. */
export async function readNote(
  cache: Folder,
  repo: HubRepo,
  commit: string,
): Promise<HubNote | undefined> {
  const path = `${notesFolder(repo)}/${commit}.json`;
  if (!await cache.has(path)) return undefined;
  const source = await cache.open(path);
  return checkJson(Note, await readJson(source), source.name);
}

/** The first wanted file that a snapshot in the cache lacks, or has in part only; undefined where it is whole. */
export async function firstMissing(
  cache: Folder,
  repo: HubRepo,
  commit: string,
  files: readonly HubFile[],
): Promise<string | undefined> {
  for (const { path, size } of files) {
    const at = `${snapshotPath(repo, commit)}/${path}`;
    if (!await cache.has(at)) return path;
    if ((await cache.open(at)).byteLength !== size) return path;
  }
  return undefined;
}
