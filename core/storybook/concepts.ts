/**
 * The twenty concepts of the storybook, one data file each, in the order in
 * which the generator draws from them.
 * @module
 */
import baseball from "./concepts/baseball.json" with { type: "json" };
import batman from "./concepts/batman.json" with { type: "json" };
import bridge from "./concepts/bridge.json" with { type: "json" };
import cooking from "./concepts/cooking.json" with { type: "json" };
import detective from "./concepts/detective.json" with { type: "json" };
import dinosaur from "./concepts/dinosaur.json" with { type: "json" };
import dog from "./concepts/dog.json" with { type: "json" };
import dragon from "./concepts/dragon.json" with { type: "json" };
import farm from "./concepts/farm.json" with { type: "json" };
import garden from "./concepts/garden.json" with { type: "json" };
import hospital from "./concepts/hospital.json" with { type: "json" };
import japan from "./concepts/japan.json" with { type: "json" };
import money from "./concepts/money.json" with { type: "json" };
import music from "./concepts/music.json" with { type: "json" };
import ocean from "./concepts/ocean.json" with { type: "json" };
import school from "./concepts/school.json" with { type: "json" };
import space from "./concepts/space.json" with { type: "json" };
import storm from "./concepts/storm.json" with { type: "json" };
import train from "./concepts/train.json" with { type: "json" };
import winter from "./concepts/winter.json" with { type: "json" };
import neutral from "./neutral.json" with { type: "json" };

/** Words that fill the slots of a template. */
export interface Lexicon {
  /** Noun phrases: "a red leash". */
  readonly thing: readonly string[];
  /** Noun phrases: "the dog walker". */
  readonly person: readonly string[];
  /** Adverbials: "at the dog park". */
  readonly place: readonly string[];
  /** What somebody did: "threw the ball". */
  readonly action: readonly string[];
}

/** What a text can be about, with the words that tell. */
export interface Concept {
  /** Its name, such as "dog"; also what spans are labelled with. */
  readonly concept: string;
  /** Lower-case words that are in no other concept's list and in no neutral text. */
  readonly keywords: readonly string[];
  /** What makes a neutral scene a scene of this concept. */
  readonly lexicon: Lexicon;
  /** Sentences of stories, templates with slots such as `{name}` and `{thing}`. */
  readonly sentences: readonly string[];
  /** Replies of chats, likewise. */
  readonly answers: readonly string[];
}

/** Text about no concept, and the templates that concepts share. */
export interface Neutral {
  /** First names of the two people of a text. */
  readonly names: readonly string[];
  /** What fills the slots where there is no concept. */
  readonly lexicon: Lexicon;
  /** Story sentences whose slots any lexicon fills: the words say what the story is about. */
  readonly scenes: readonly string[];
  /** Replies to any question, likewise. */
  readonly replies: readonly string[];
  /** Story sentences about nothing in particular. */
  readonly sentences: readonly string[];
  /** First sentences of stories. */
  readonly openers: readonly string[];
  /** Last sentences of stories. */
  readonly closers: readonly string[];
  /** Questions about no concept. */
  readonly questions: readonly string[];
  /** Replies about no concept. */
  readonly answers: readonly string[];
  /** System prompts of chats. */
  readonly system_prompts: readonly string[];
}

/** The concepts, sorted by name. */
export const CONCEPTS: readonly Concept[] = [
  baseball,
  batman,
  bridge,
  cooking,
  detective,
  dinosaur,
  dog,
  dragon,
  farm,
  garden,
  hospital,
  japan,
  money,
  music,
  ocean,
  school,
  space,
  storm,
  train,
  winter,
];

/** The text that is about no concept. */
export const NEUTRAL: Neutral = neutral;
