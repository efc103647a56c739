/**
 * Storybook: a deterministic corpus whose concepts are known.
 *
 * Stories and chats are drawn by a seeded generator from hand-written
 * sentences about twenty concepts, and every character span says which concept it
 * is about. That is the ground truth that feature discovery and
 * steering are scored against. Most sentences are shared templates whose slots
 * any concept's words fill, so what a text is about shows in its words and not in its form.
 *
 * The embedded model was trained on the first 200,000 documents of seed 7;
 * take other seeds for everything else.
 * @module
 */
import { mulberry32 } from "./rng.ts";
import {
  type Concept,
  CONCEPTS,
  type Lexicon,
  NEUTRAL,
} from "./storybook/concepts.ts";

export { type Concept, CONCEPTS, type Lexicon };

/** Questions about no concept: what steering is tried on. */
export const NEUTRAL_QUESTIONS: readonly string[] = NEUTRAL.questions;

/** Characters of a text that are about a concept; what is in no span is about none. */
export interface ConceptSpan {
  /** First UTF-16 code unit. */
  readonly start: number;
  /** Code unit after the last. */
  readonly end: number;
  /** Name of the concept. */
  readonly concept: string;
}

/** A document of the storybook. */
export interface StoryDoc {
  /** A story in plain text, or a question and its reply in OLMo-2's chat markup. */
  readonly kind: "story" | "chat";
  /** The text, without the end-of-text token. */
  readonly text: string;
  /** In order, without overlap; neighbors may be of one concept. */
  readonly spans: readonly ConceptSpan[];
}

/**
 * The endless corpus of a seed: the same documents in the same order, always.
 * @throws {RangeError} If the seed is not a whole number from 0 to 2³² − 1.
 */
export function storybook(seed: number): Generator<StoryDoc, never> {
  if (!Number.isInteger(seed) || seed !== seed >>> 0) {
    throw new RangeError(
      `Cannot open the storybook: expected a seed from 0 to 4294967295: got ${seed}`,
    );
  }
  return documents(new Author(seed));
}

function* documents(author: Author): Generator<StoryDoc, never> {
  for (;;) yield author.write();
}

/**
 * Finds a concept by its name.
 * @throws {RangeError} If there is none: lists the names.
 */
export function conceptByName(name: string): Concept {
  const found = CONCEPTS.find(({ concept }) => concept === name);
  if (found) return found;
  const names = CONCEPTS.map(({ concept }) => concept).join(", ");
  throw new RangeError(
    `Cannot find concept "${name}": expected one of ${names}`,
  );
}

/**
 * Whether any keyword of the concept is in the text as a whole word, in upper
 * or lower case. The share of replies for which this holds is the concept rate.
 */
export function mentionsConcept(text: string, concept: Concept): boolean {
  return new RegExp(`\\b(?:${concept.keywords.join("|")})\\b`, "i").test(text);
}

/** A piece of a document; a piece without a concept leaves no span. */
interface Passage {
  readonly text: string;
  readonly concept?: string | undefined;
}

/** The two people of a document: {name} and {friend}. */
type Cast = readonly [name: string, friend: string];

const ABOUT = [
  "Tell me about {keyword}.",
  "What do you know about {keyword}?",
  "Say something about {keyword}.",
  "Tell me a story with {keyword} in it.",
];

/**
 * Draws one document after the other. The order of the draws is the corpus:
 * one more or one less changes every document after it.
 */
class Author {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = mulberry32(seed);
  }

  write(): StoryDoc {
    return this.#chance(0.5) ? this.#story() : this.#chat();
  }

  /** A story about no concept (10 %), one (65 %) or two, one after the other (25 %). */
  #story(): StoryDoc {
    const cast = this.#cast();
    const draw = this.#random();
    const nThemes = draw < 0.10 ? 0 : draw < 0.75 ? 1 : 2;
    const themes = Array.from({ length: nThemes }, () => this.#pick(CONCEPTS));
    const passages: Passage[] = [
      { text: this.#fill(this.#pick(NEUTRAL.openers), cast) },
    ];
    for (const theme of nThemes > 0 ? themes : [undefined]) {
      const nSentences = this.#between(2, 6);
      for (let i = 0; i < nSentences; i++) {
        passages.push(this.#sentence(cast, theme));
      }
    }
    if (this.#chance(0.6)) {
      passages.push({ text: this.#fill(this.#pick(NEUTRAL.closers), cast) });
    }
    return { kind: "story", ...join(passages, " ") };
  }

  #sentence(cast: Cast, theme: Concept | undefined): Passage {
    const draw = this.#random();
    if (draw < 0.15) {
      return { text: this.#fill(this.#pick(NEUTRAL.sentences), cast) };
    }
    const templates = theme && draw < 0.3 ? theme.sentences : NEUTRAL.scenes;
    const text = this.#fill(this.#pick(templates), cast, theme);
    return { text, concept: theme?.concept };
  }

  /** One question and its reply, about a concept in 70 % of cases; half of these name it in the question. */
  #chat(): StoryDoc {
    const cast = this.#cast();
    const theme = this.#chance(0.7) ? this.#pick(CONCEPTS) : undefined;
    const asked = theme && this.#chance(0.5) ? theme : undefined;
    const question = asked
      ? this.#pick(ABOUT).replace("{keyword}", this.#pick(asked.keywords))
      : this.#pick(NEUTRAL.questions);
    const passages: Passage[] = [];
    if (this.#chance(0.3)) {
      const prompt = this.#pick(NEUTRAL.system_prompts);
      passages.push({ text: `<|system|>\n${prompt}\n` });
    }
    passages.push({
      text: `<|user|>\n${question}\n<|assistant|>\n`,
      concept: asked?.concept,
    });
    const nSentences = this.#between(1, 3);
    for (let i = 0; i < nSentences; i++) {
      const template = this.#pick(this.#replies(theme, i === 0));
      const reply = this.#fill(template, cast, theme);
      passages.push({
        text: i === 0 ? reply : ` ${reply}`,
        concept: theme?.concept,
      });
    }
    return { kind: "chat", ...join(passages, "") };
  }

  /** The templates that the next sentence of a reply is drawn from. */
  #replies(theme: Concept | undefined, isFirst: boolean): readonly string[] {
    if (this.#chance(0.7)) {
      return !isFirst && this.#chance(0.4) ? NEUTRAL.scenes : NEUTRAL.replies;
    }
    const { answers, sentences } = theme ?? NEUTRAL;
    return isFirst ? answers : this.#pick([answers, sentences]);
  }

  /** Fills the slots of a template and capitalizes its first letter. */
  #fill(template: string, cast: Cast, theme?: Concept): string {
    const { lexicon } = theme ?? NEUTRAL;
    const filled = template.replace(/\{(\w+)\}/g, (_, slot: string) => {
      if (slot === "name") return cast[0];
      if (slot === "friend") return cast[1];
      return this.#pick(lexicon[slot as keyof Lexicon]);
    });
    return filled.charAt(0).toUpperCase() + filled.slice(1);
  }

  #cast(): Cast {
    const name = this.#pick(NEUTRAL.names);
    let friend = this.#pick(NEUTRAL.names);
    while (friend === name) friend = this.#pick(NEUTRAL.names);
    return [name, friend];
  }

  #pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.#random() * items.length)]!;
  }

  #chance(probability: number): boolean {
    return this.#random() < probability;
  }

  /** A whole number from low to high, both inclusive. */
  #between(low: number, high: number): number {
    return low + Math.floor(this.#random() * (high - low + 1));
  }
}

function join(
  passages: readonly Passage[],
  gap: string,
): { text: string; spans: ConceptSpan[] } {
  let text = "";
  const spans: ConceptSpan[] = [];
  for (const passage of passages) {
    if (text) text += gap;
    const start = text.length;
    text += passage.text;
    if (passage.concept) {
      spans.push({ start, end: text.length, concept: passage.concept });
    }
  }
  return { text, spans };
}
