/**
 * Documents in runs for one pass of a model, and which of their rows are kept,
 * held out or trained on.
 * @module
 */
import type { TokenizedDocument } from "../core/tokenized_text.ts";
import type { ResidualReader } from "./residual_reader.ts";

/** A document as the model reads it, of at most a pass's tokens. */
export type LiveDocument = Pick<TokenizedDocument, "index" | "ids">;

/** Where rows come from. */
export interface LiveSource {
  /** The model up to the hook; stays its owner's, and reads for nobody else meanwhile. */
  readonly reader: ResidualReader;
  /** What errors call the text. */
  readonly name: string;
  /** The text's documents from an index on, in order, the same each time; their indices count from 0. */
  readonly documents: (first: number) => AsyncIterable<LiveDocument>;
  /** Tokens at the start of each document whose rows are left out. */
  readonly skipFirst: number;
  /** Tokens whose rows are left out; none when absent. */
  readonly skipTokens?: readonly number[];
  /** Rows at the start of the text that are held out. */
  readonly holdOut: number;
}

/** Rows of a pass, one after the other. */
export interface RowRun {
  /** The first among all tokens of the pass. */
  readonly from: number;
  /** How many. */
  readonly n: number;
}

/** Documents that go through the model together. */
export interface LivePass {
  /** Index of its first document. */
  readonly first: number;
  /** Token ids of each document. */
  readonly sequences: readonly LiveDocument["ids"][];
  /** Which rows are kept. */
  readonly runs: readonly RowRun[];
  /** Rows of all runs. */
  readonly n: number;
  /** Rows that are left out for their token. */
  readonly nSkipped: number;
}

/** Where rows to train on begin in every epoch. */
export interface TrainStart {
  /** Index of the first document of the first pass with such rows. */
  readonly document: number;
  /** Kept rows of that pass that are held out. */
  readonly nHeldOut: number;
}

/**
 * Runs the model on the passes with rows to hold out, and finds where those to train on begin.
 * @returns The rows held out too: bits of bf16 `[n, d_model]`, a pass at a time.
 * @throws {RangeError} If nothing is left to train on.
 */
export async function holdOutRows(
  source: LiveSource,
): Promise<{ start: TrainStart; heldOut: Uint16Array<ArrayBuffer>[] }> {
  const { name, reader, holdOut } = source;
  const { d_model } = reader.model.config;
  const heldOut: Uint16Array<ArrayBuffer>[] = [];
  let left = holdOut;
  for await (const pass of packPasses(source, 0)) {
    const n = Math.min(left, pass.n);
    if (n > 0) {
      reader.submit(pass.sequences);
      const all = await reader.rows();
      const kept = new Uint16Array(pass.n * d_model);
      let at = 0;
      for (const run of pass.runs) {
        const end = run.from + run.n;
        kept.set(all.subarray(run.from * d_model, end * d_model), at);
        at += run.n * d_model;
      }
      heldOut.push(kept.slice(0, n * d_model));
    }
    left -= n;
    if (n < pass.n) {
      return { start: { document: pass.first, nHeldOut: n }, heldOut };
    }
  }
  throw new RangeError(
    `Cannot train on "${name}": expected more than the ${holdOut} vectors that are held out: got ${
      holdOut - left
    }: take a longer text, or hold out fewer`,
  );
}

/**
 * The passes with rows to train on, from the one that begins with a document on,
 * epoch after epoch; ends only if the text has no such document any more.
 */
export async function* trainingPasses(
  source: LiveSource,
  start: TrainStart,
  document: number,
): AsyncGenerator<LivePass, undefined> {
  for (let first = document;; first = start.document) {
    let isEmpty = true;
    for await (const pass of packPasses(source, first)) {
      isEmpty = false;
      const isFirst = pass.first === start.document;
      const trained = isFirst ? withoutFirst(pass, start.nHeldOut) : pass;
      if (trained.n > 0) yield trained;
    }
    if (isEmpty) return;
  }
}

/**
 * The documents from one on, in passes that each end before the document that would bring them past the
 * reader's tokens. The same again from the first document of any pass.
 */
async function* packPasses(
  { reader: { maxTokens }, documents, skipFirst, skipTokens }: LiveSource,
  document: number,
): AsyncGenerator<LivePass> {
  const skip = { first: skipFirst, tokens: new Set(skipTokens) };
  let run: LiveDocument[] = [];
  let nTokens = 0;
  for await (const next of documents(document)) {
    const { length } = next.ids;
    if (run.length > 0 && nTokens + length > maxTokens) {
      yield passOf(run, skip);
      run = [];
      nTokens = 0;
    }
    run.push(next);
    nTokens += length;
  }
  if (run.length > 0) yield passOf(run, skip);
}

function passOf(
  documents: readonly LiveDocument[],
  skip: { readonly first: number; readonly tokens: ReadonlySet<number> },
): LivePass {
  const runs: { from: number; n: number }[] = [];
  let n = 0;
  let nSkipped = 0;
  let start = 0;
  for (const { ids } of documents) {
    for (let i = skip.first; i < ids.length; i++) {
      const row = start + i;
      const last = runs.at(-1);
      if (skip.tokens.has(ids[i]!)) {
        nSkipped++;
        continue;
      }
      if (last && last.from + last.n === row) last.n++;
      else runs.push({ from: row, n: 1 });
      n++;
    }
    start += ids.length;
  }
  return {
    first: documents[0]!.index,
    sequences: documents.map(({ ids }) => ids),
    runs,
    n,
    nSkipped,
  };
}

/** A pass of which some rows fewer are kept, at its start. */
function withoutFirst(pass: LivePass, nRows: number): LivePass {
  let left = nRows;
  const runs = pass.runs.flatMap(({ from, n }) => {
    const cut = Math.min(left, n);
    left -= cut;
    return cut < n ? [{ from: from + cut, n: n - cut }] : [];
  });
  return { ...pass, runs, n: pass.n - nRows };
}
