/**
 * Which documents of a text are read, and in which order.
 *
 * Documents are numbered in the order of reading. Shuffled, that order is: files by a permutation of the seed, the row
 * groups of each parquet file by one of the seed and the file's place, and what follows from that in windows of 2,048
 * documents, each by one of the seed and the window's number. So a document is found without reading all before
 * it, and no more than a window is in memory; texts that lie far apart in a file of lines stay apart.
 *
 * A shard has runs of 256 documents of that order, every `count`-th run.
 * @module
 */
import { Rng } from "./rng.ts";
import type { NumberedPlace } from "./text_document.ts";
import type { NextWanted } from "./text_files.ts";

/** A part of a text for one of several tasks. */
export interface TextShard {
  /** Which part, from 0. */
  readonly index: number;
  /** Number of parts. */
  readonly count: number;
}

/** Consecutive documents of one shard. */
const RUN = 256;
/** Documents that are shuffled together; whole runs. */
const WINDOW = 2048;

/** The documents of a shard in [first, end). */
export function wantedOfShard(
  { index, count }: TextShard,
  first: number,
  end: number,
): NextWanted {
  return (n) => {
    const from = Math.max(n, first);
    const run = Math.floor(from / RUN);
    const ahead = ((index - run) % count + count) % count;
    const next = ahead === 0 ? from : (run + ahead) * RUN;
    return next < end ? next : Infinity;
  };
}

/** All documents of the windows in which any is wanted. */
export function wantedWindows(wanted: NextWanted): NextWanted {
  return (n) => {
    const next = wanted(startOfWindow(n));
    return next === Infinity ? next : Math.max(n, startOfWindow(next));
  };
}

/** Documents that come in whole windows, shuffled in each, and of these the wanted ones. */
export async function* shuffleWindows(
  documents: AsyncIterable<NumberedPlace>,
  seed: number,
  wanted: NextWanted,
): AsyncGenerator<NumberedPlace> {
  let window: NumberedPlace[] = [];
  const shuffled = function* (): Generator<NumberedPlace> {
    const start = startOfWindow(window[0]!.index);
    const order = shuffleRng(seed, `window ${start / WINDOW}`).shuffle(window);
    for (let n = wanted(start); n < start + order.length; n = wanted(n + 1)) {
      yield { index: n, document: order[n - start]!.document };
    }
  };
  for await (const document of documents) {
    window.push(document);
    if (window.length < WINDOW) continue;
    yield* shuffled();
    window = [];
  }
  if (window.length > 0) yield* shuffled();
}

/** Draws one of the permutations. */
export function shuffleRng(seed: number, what: string): Rng {
  return new Rng(seed).fork("text").fork(what);
}

function startOfWindow(n: number): number {
  return n - n % WINDOW;
}
