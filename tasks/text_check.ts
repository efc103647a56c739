/**
 * Texts that are read through before a task writes anything.
 * @module
 */
import type { CorpusDocument } from "../core/text.ts";
import { openPath, type TaskContext } from "./cli.ts";

/** Which documents of a text are going to be used. */
export interface TextUse {
  /** The text, as `readDocuments` takes it. */
  readonly text: string;
  /** Most documents; Infinity for all. */
  readonly nDocuments: number;
}

/**
 * Reads the documents that a task will use, and forgets them: a fault in the last one shows
 * before the output folder is made. It takes a small part of the time that a model needs for them.
 * @throws {Error} What is wrong with the first faulty one.
 */
export async function checkText(
  documents: AsyncIterable<CorpusDocument>,
  { text, nDocuments }: TextUse,
  { progress, signal }: TaskContext,
): Promise<void> {
  // The storybook is made, not read: after its first document nothing can be wrong.
  const most = text.startsWith("storybook:") ? 1 : nDocuments;
  using bar = progress({ label: "check text", unit: "documents" });
  let n = 0;
  for await (const _ of documents) {
    signal.throwIfAborted();
    bar.update(++n);
    if (n >= most) break;
  }
}

/** Names and sizes of the files of a text: a resumed run must find the same ones. */
export async function fileSizes(
  text: string,
): Promise<(readonly [string, number])[]> {
  if (text.startsWith("storybook:")) return [];
  const opened = await openPath(text);
  const names = "list" in opened ? await opened.list() : [];
  const sources = "list" in opened
    ? await Promise.all(names.map((name) => opened.open(name)))
    : [opened];
  return sources.map(({ name, byteLength }) => [name, byteLength] as const);
}
