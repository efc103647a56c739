/**
 * Texts as training and collecting read them.
 * @module
 */
import {
  type CorpusDocument,
  type NumberedDocument,
  openCorpus,
  type ReadCorpus,
} from "../../core/text.ts";

/** The documents of a list; every item comes later, as from files. */
export function corpusOf(documents: readonly CorpusDocument[]): ReadCorpus {
  return async function* (
    first = 0,
    end = Infinity,
  ): AsyncGenerator<NumberedDocument> {
    for (const [index, document] of documents.entries()) {
      if (index >= first && index < end) {
        yield await Promise.resolve({ index, document });
      }
    }
  };
}

/** The storybook, as `storybook:SEED:N`. */
export async function story(text: string): Promise<ReadCorpus> {
  const { read } = await openCorpus(text, () => Promise.reject());
  return read;
}
