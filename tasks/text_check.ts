/**
 * Texts that are looked into before a task writes anything.
 * @module
 */
import type { Corpus } from "../core/text.ts";
import type { TaskContext } from "./cli.ts";

/** Texts of more bytes are looked into, and not read through. */
const MAX_BYTES = 64 * 2 ** 20;
/** Of the files of such a text, as many are looked into. */
const MAX_FILES = 64;
/** And of one that lies elsewhere. */
const MAX_REMOTE_FILES = 8;

/**
 * Reads the documents that a task will use, and forgets them: a fault in the last one shows before the output folder
 * is made. Of a text of more than 64 MiB only the first documents of the first 64 files (8 over the network) are read, which shows a wrong format or
 * column; a fault that lies further back ends the run where it is reached.
 * @param nDocuments Documents of the text that are going to be used; Infinity for all.
 * @throws {Error} What is wrong with the first faulty one.
 */
export async function checkText(
  corpus: Corpus,
  nDocuments: number,
  { progress, signal }: TaskContext,
): Promise<void> {
  using bar = progress({ label: "check text", unit: "documents" });
  let n = 0;
  const bytes = corpus.files.reduce((sum, file) => sum + file.byteLength, 0);
  // The storybook is made, not read: after its first document nothing can be wrong.
  const isRemote = corpus.files.some((file) => file.isRemote);
  const isShort = bytes > 0 && bytes <= MAX_BYTES;
  const documents = isShort
    ? corpus.read(0, nDocuments)
    : corpus.sample(isRemote ? MAX_REMOTE_FILES : MAX_FILES);
  for await (const _ of documents) {
    signal.throwIfAborted();
    bar.update(++n);
  }
}
