/**
 * Texts that show a concept, and texts that do not, for the search by example.
 * @module
 */
import { Rng } from "../core/rng.ts";
import type { CorpusDocument } from "../core/text.ts";

/** What a person gives to show a concept. */
export interface ExampleQuery {
  /** Words or short phrases of the concept; sentences that have them are looked up. */
  readonly words?: readonly string[];
  /** Texts about the concept. */
  readonly examples?: readonly string[];
  /** Texts that are not about it, however close: a feature must be silent on these too. */
  readonly against?: readonly string[];
}

/** The texts of a search. */
export interface Examples {
  /** Texts that show the concept. */
  readonly positives: readonly string[];
  /** Groups of texts that do not show it, none of them empty. */
  readonly contrasts: readonly (readonly string[])[];
  /** How many sentences of the corpus have each word; a word that none has is put into made sentences. */
  readonly nFound: ReadonlyMap<string, number>;
}

/** Sentences taken for each word: with 8 to 32 the search does equally well. */
const SENTENCES_PER_WORD = 16;
/** Sentences to compare with: with 50 to 500 the search does equally well. */
const CONTRAST_SENTENCES = 200;
/** Longer pieces of text are tables or lists rather than sentences. */
const MOST_CHARACTERS = 500;

/**
 * Collects the texts of a search: sentences of the documents that have a word of
 * the query, its own examples, and a random sample of the other sentences to compare with.
 * Reads all documents; equal documents give equal texts.
 * @throws {RangeError} If the query shows nothing or has an empty text, or there is nothing to compare with.
 */
export async function gatherExamples(
  query: ExampleQuery,
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
): Promise<Examples> {
  const { words = [], examples = [], against = [] } = query;
  checkQuery(words, examples, against);
  const patterns = words.map(wordPattern);
  const found = words.map(() => new Set<string>());
  const rng = new Rng(0);
  const others: string[] = [];
  let nOthers = 0;
  for await (const document of documents) {
    for (const sentence of sentencesOf(document)) {
      const word = patterns.findIndex((pattern) => pattern.test(sentence));
      if (word >= 0) {
        const held = found[word]!;
        if (held.size < SENTENCES_PER_WORD) held.add(sentence);
        continue;
      }
      // Every sentence so far has the same chance to be in the sample.
      const place = rng.below(++nOthers);
      if (others.length < CONTRAST_SENTENCES) others.push(sentence);
      else if (place < CONTRAST_SENTENCES) others[place] = sentence;
    }
  }
  const contrasts = [others, against].filter(({ length }) => length > 0);
  if (contrasts.length === 0) {
    throw new RangeError(
      "Cannot search: expected sentences that do not show the concept: got none: name a longer text or give --against",
    );
  }
  const sentences = words.flatMap((word, i) =>
    found[i]!.size > 0 ? [...found[i]!] : carriers(word)
  );
  return {
    positives: [...sentences, ...examples],
    contrasts,
    nFound: new Map(words.map((word, i) => [word, found[i]!.size])),
  };
}

function checkQuery(
  words: readonly string[],
  examples: readonly string[],
  against: readonly string[],
): void {
  if (words.length + examples.length === 0) {
    throw new RangeError(
      "Cannot search: expected a word or an example of the concept: got none",
    );
  }
  if ([...words, ...examples, ...against].every((text) => text.trim())) return;
  throw new RangeError(
    "Cannot search: expected words and examples with text: got an empty one",
  );
}

/** Matches a word or phrase as a whole, in upper or lower case, in any script. */
function wordPattern(word: string): RegExp {
  const phrase = word.trim().split(/\s+/).map(RegExp.escape).join("\\s+");
  return new RegExp(`(?<![\\p{L}\\p{N}])${phrase}(?![\\p{L}\\p{N}])`, "iu");
}

/** Sentences that a word of no document is put into. */
function carriers(word: string): string[] {
  return [
    `Tell me about ${word}.`,
    `This is a story about ${word}.`,
    `They talked about ${word} all day.`,
    `${word.charAt(0).toUpperCase()}${word.slice(1)} is what I like most.`,
  ];
}

const segmenter = new Intl.Segmenter("en", { granularity: "sentence" });

/** The sentences of a document, without marks of a chat template. */
function* sentencesOf(document: CorpusDocument): Generator<string> {
  const texts = "messages" in document
    ? document.messages.map(({ content }) => content)
    : document.text.split(/<\|\w+\|>/);
  for (const text of texts) {
    for (const { segment } of segmenter.segment(text)) {
      const sentence = segment.trim();
      const isSentence = sentence.length <= MOST_CHARACTERS &&
        /\p{L}/u.test(sentence);
      if (isSentence) yield sentence;
    }
  }
}
