/**
 * Text sources: the storybook, text files, JSON lines, parquet, and folders of
 * these, as a stream of documents.
 * @module
 */
import type { Folder, Source } from "./source.ts";
import { storybook } from "./storybook.ts";
import type {
  CorpusDocument,
  DocumentOptions,
  NumberedDocument,
  NumberedPlace,
} from "./text_document.ts";
import {
  isTextFile,
  type NextWanted,
  readTextFile,
  TEXT_ENDINGS,
} from "./text_files.ts";
import {
  shuffleRng,
  shuffleWindows,
  type TextShard,
  wantedOfShard,
  wantedWindows,
} from "./text_order.ts";

export type {
  ChatDocument,
  CorpusDocument,
  DocumentOptions,
  NumberedDocument,
  TextDocument,
} from "./text_document.ts";
export type { TextShard } from "./text_order.ts";

/** Opens a path as what it is. */
export type OpenPath = (path: string) => Promise<Source | Folder>;

/** Which documents of a text are read, and in which order. */
export interface CorpusOptions extends DocumentOptions {
  /** The part that is read; all without it. */
  readonly shard?: TextShard | undefined;
  /** Seed of the order; that of the files without it. */
  readonly shuffleSeed?: number | undefined;
}

/**
 * The documents numbered [first, end) in the order of reading, of the shard only; default all. Errors come when the
 * stream reaches them; documents before `first` are passed over unchecked.
 */
export type ReadCorpus = (
  first?: number,
  end?: number,
) => AsyncGenerator<NumberedDocument>;

/** A text that can be read from any document on. */
export interface Corpus {
  /** What errors call it. */
  readonly name: string;
  /** Its files in the order of their names; none of the storybook. */
  readonly files: readonly Source[];
  /** Whether it never ends. */
  readonly isEndless: boolean;
  readonly read: ReadCorpus;
  /** The first document of each of the first n files, in the order of reading; whatever the shard. */
  sample(n: number): AsyncGenerator<NumberedDocument>;
}

/**
 * Opens a text:
 * - `storybook:SEED` or `storybook:SEED:N`: the storybook, endless or N documents;
 * - `FILE.txt`: paragraphs, separated by blank lines, each a document;
 * - `FILE.jsonl`: a document a line, with a text field (and `spans`, as the storybook writes them) or `messages`;
 * - `FILE.txt.gz`, `FILE.jsonl.zst`, `FILE.json.gz` and the like: the same, compressed;
 * - `FILE.parquet`: a document a row, with a text column or `messages`;
 * - a folder: all such files in it and in the folders below it, sorted by name.
 * @throws {SyntaxError} If the storybook is misspelled.
 * @throws {RangeError} If a folder has no such file.
 */
export async function openCorpus(
  spec: string,
  open: OpenPath,
  options: CorpusOptions = {},
): Promise<Corpus> {
  const { shard = { index: 0, count: 1 }, shuffleSeed } = options;
  const { read, sample, ...text } = spec.startsWith("storybook:")
    ? openStorybook(spec)
    : openFiles(await textFiles(spec, open), options);
  return {
    ...text,
    name: spec,
    read(first = 0, end = Infinity): AsyncGenerator<NumberedDocument> {
      const wanted = wantedOfShard(shard, first, end);
      if (shuffleSeed === undefined) return withText(read(wanted));
      const windows = read(wantedWindows(wanted));
      return withText(shuffleWindows(windows, shuffleSeed, wanted));
    },
    sample: (n) => withText(sample(n)),
  };
}

/** The documents that are not passed over. */
async function* withText(
  places: AsyncIterable<NumberedPlace>,
): AsyncGenerator<NumberedDocument> {
  for await (const { index, document } of places) {
    if (document) yield { index, document };
  }
}

/**
 * All documents of a text in the order of its files, as {@link openCorpus} has them.
 * Errors come when the stream reaches them, the first ones at the first document.
 * @throws {SyntaxError} If the source is misspelled, or a document is empty, not UTF-8 or lacks its field: names file and line or row.
 * @throws {TypeError} If a file has another ending.
 * @throws {RangeError} If a file has no document, or a folder no such file.
 */
export async function* readDocuments(
  spec: string,
  open: OpenPath,
  options: DocumentOptions = {},
): AsyncGenerator<CorpusDocument> {
  const corpus = await openCorpus(spec, open, options);
  for await (const { document } of corpus.read()) yield document;
}

/** A text in the order of its files and row groups. */
interface OpenText extends Pick<Corpus, "files" | "isEndless"> {
  read(wanted: NextWanted): AsyncGenerator<NumberedPlace>;
  sample(n: number): AsyncGenerator<NumberedPlace>;
}

async function textFiles(spec: string, open: OpenPath): Promise<Source[]> {
  const opened = await open(spec);
  if (!("list" in opened)) return [opened];
  const names = (await opened.list({ deep: true })).filter(isTextFile);
  const files: Source[] = [];
  // Some at a time: each may be a request.
  for (let at = 0; at < names.length; at += 16) {
    const some = names.slice(at, at + 16);
    files.push(...await Promise.all(some.map((name) => opened.open(name))));
  }
  if (files.length > 0) return files;
  throw new RangeError(
    `Cannot read text in "${spec}": expected files that end in ${TEXT_ENDINGS}: got none: name another folder`,
  );
}

function openFiles(
  files: readonly Source[],
  { textColumn, skipEmpty, shuffleSeed }: CorpusOptions,
): OpenText {
  const places = [...files.keys()];
  const order = shuffleSeed === undefined
    ? places
    : shuffleRng(shuffleSeed, "files").shuffle(places);
  const readFile = async function* (
    place: number,
    first: number,
    nextWanted: NextWanted,
  ): AsyncGenerator<NumberedPlace, number> {
    const source = files[place]!;
    const end = yield* readTextFile(source, {
      textColumn,
      skipEmpty,
      first,
      nextWanted,
      order: shuffleSeed === undefined
        ? undefined
        : shuffleRng(shuffleSeed, `file ${place}`),
    });
    if (end > first || skipEmpty) return end;
    throw new RangeError(
      `Cannot read "${source.name}": expected text: got none: remove it, or give collect or train --skip-empty`,
    );
  };
  return {
    files,
    isEndless: false,
    async *read(nextWanted): AsyncGenerator<NumberedPlace> {
      let first = 0;
      for (const place of order) {
        if (nextWanted(first) === Infinity) return;
        first = yield* readFile(place, first, nextWanted);
      }
    },
    async *sample(n): AsyncGenerator<NumberedPlace> {
      for (const place of order.slice(0, n)) {
        yield* readFile(place, 0, (n) => n === 0 ? 0 : Infinity);
      }
    },
  };
}

function openStorybook(spec: string): OpenText {
  const [, seed, n = "Infinity"] = /^storybook:(\d+)(?::([1-9]\d*))?$/
    .exec(spec) ?? [];
  if (seed === undefined) {
    throw new SyntaxError(
      `Cannot read "${spec}": expected storybook:SEED or storybook:SEED:N with N documents`,
    );
  }
  const read = async function* (
    nextWanted: NextWanted,
  ): AsyncGenerator<NumberedPlace> {
    const stories = storybook(Number(seed));
    for (let index = 0; index < Number(n); index++) {
      const wanted = nextWanted(index);
      if (wanted === Infinity) return;
      const { text, spans } = stories.next().value;
      if (wanted > index) continue;
      const id = `storybook:${seed}:${index}`;
      yield { index, document: { id, text, spans } };
    }
  };
  return {
    files: [],
    isEndless: Number(n) === Infinity,
    read,
    sample: () => read((n) => n === 0 ? 0 : Infinity),
  };
}
