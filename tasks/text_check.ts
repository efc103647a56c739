/**
 * Texts that are read through before a task writes anything.
 * @module
 */
import type { CorpusDocument } from "../core/text.ts";
import type { TaskContext } from "./cli.ts";

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
