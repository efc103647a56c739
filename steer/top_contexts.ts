/**
 * The places where features fire most strongly, of many features in little memory.
 * @module
 */
import type { Tokenizer } from "../core/tokenizer.ts";

/** Tokens of a context before its strongest one. */
const TOKENS_BEFORE = 16;
/** Tokens of a context after its strongest one. */
const TOKENS_AFTER = 8;
const CONTEXT_TOKENS = TOKENS_BEFORE + 1 + TOKENS_AFTER;

/** A place where a feature fires. */
export interface FeatureContext {
  /** Id of the document. */
  readonly document: string;
  /** Position of the strongest token in the document; the start token is at 0. */
  readonly position: number;
  /** Activation there. */
  readonly activation: number;
  /** Position of the first of `ids`. */
  readonly start: number;
  /** The tokens around it, up to 16 before and 8 after. */
  readonly ids: readonly number[];
  /** The feature's activation on each of `ids`. */
  readonly acts: readonly number[];
}

/** Positions `[start, end)` of the tokens around a position; a document may end before `end`. */
export function contextRange(
  position: number,
): readonly [start: number, end: number] {
  const start = Math.max(0, position - TOKENS_BEFORE);
  return [start, position + TOKENS_AFTER + 1];
}

/** Whether a context is one that {@link TopContexts} can hold. */
export function isContext(
  { position, start, ids, acts }: FeatureContext,
): boolean {
  const [first, end] = contextRange(position);
  return start === first && ids.length === acts.length &&
    position < start + ids.length && start + ids.length <= end;
}

/**
 * The text of a context in one line, with marks around the tokens on which the
 * feature fires: `Ben threw the «fastball» past`. Special tokens are left out.
 */
export function contextText(
  { ids, acts }: FeatureContext,
  tokenizer: Pick<Tokenizer, "streamDecoder">,
  marks: readonly [open: string, close: string] = ["«", "»"],
): string {
  const decoder = tokenizer.streamDecoder({ skipSpecial: true });
  let text = "";
  let isMarked = false;
  for (const [i, id] of ids.entries()) {
    // A character of several tokens stands where its last one does.
    const piece = decoder.push(id);
    const fires = acts[i]! > 0;
    if (piece !== "" && fires !== isMarked) {
      // The space before a word belongs to its token, but not to what is marked.
      const space = fires ? /^\s*/.exec(piece)![0] : "";
      text += space + (fires ? marks[0] : marks[1]) + piece.slice(space.length);
      isMarked = fires;
    } else text += piece;
  }
  text += decoder.end() + (isMarked ? marks[1] : "");
  return text.replace(/\s+/g, " ").trim();
}

/** The strongest contexts of every feature, in arrays: a million small objects would take several times the memory. */
export class TopContexts {
  readonly #nContexts: number;
  readonly #nFilled: Uint32Array<ArrayBuffer>; // per feature
  readonly #least: Float32Array<ArrayBuffer>; // per feature, 0 until full
  // per feature and place, in no order:
  readonly #activation: Float32Array<ArrayBuffer>;
  readonly #document: Float64Array<ArrayBuffer>; // number in the corpus
  readonly #position: Uint32Array<ArrayBuffer>;
  readonly #length: Uint8Array<ArrayBuffer>;
  // per feature, place and token:
  readonly #ids: Uint32Array<ArrayBuffer>;
  readonly #acts: Float32Array<ArrayBuffer>;
  /** Ids of documents by number. */
  readonly #names = new Map<number, string>();

  /** Takes the memory at once. */
  constructor(d_sae: number, nContexts: number) {
    const n = d_sae * nContexts;
    this.#nContexts = nContexts;
    this.#nFilled = new Uint32Array(d_sae);
    this.#least = new Float32Array(d_sae);
    this.#activation = new Float32Array(n);
    this.#document = new Float64Array(n);
    this.#position = new Uint32Array(n);
    this.#length = new Uint8Array(n);
    this.#ids = new Uint32Array(n * CONTEXT_TOKENS);
    this.#acts = new Float32Array(n * CONTEXT_TOKENS);
  }

  /** The activation that a context must exceed to be taken. */
  least(feature: number): number {
    return this.#least[feature]!;
  }

  /** Adds a context, in the place of the weakest if there are enough; of equals the later document goes. */
  add(feature: number, document: number, context: FeatureContext): void {
    const first = feature * this.#nContexts;
    const isFull = this.#nFilled[feature] === this.#nContexts;
    const place = isFull
      ? this.#places(feature).at(-1)!
      : first + this.#nFilled[feature]!++;
    this.#activation[place] = context.activation;
    this.#document[place] = document;
    this.#position[place] = context.position;
    this.#length[place] = context.ids.length;
    this.#ids.set(context.ids, place * CONTEXT_TOKENS);
    this.#acts.set(context.acts, place * CONTEXT_TOKENS);
    this.#names.set(document, context.document);
    if (this.#nFilled[feature] === this.#nContexts) {
      const held = this.#activation.subarray(first, first + this.#nContexts);
      this.#least[feature] = Math.min(...held);
    }
  }

  /** The contexts of a feature, strongest first. */
  contexts(feature: number): FeatureContext[] {
    return this.#places(feature).map((place) => {
      const at = place * CONTEXT_TOKENS;
      const end = at + this.#length[place]!;
      const position = this.#position[place]!;
      return {
        document: this.#names.get(this.#document[place]!)!,
        position,
        activation: this.#activation[place]!,
        start: contextRange(position)[0],
        ids: Array.from(this.#ids.subarray(at, end)),
        acts: Array.from(this.#acts.subarray(at, end)),
      };
    });
  }

  /** Places of a feature's contexts: strongest first, equals in the order of the text. */
  #places(feature: number): number[] {
    const first = feature * this.#nContexts;
    const length = this.#nFilled[feature]!;
    return Array.from({ length }, (_, i) => first + i).sort((a, b) =>
      this.#activation[b]! - this.#activation[a]! ||
      this.#document[a]! - this.#document[b]! ||
      this.#position[a]! - this.#position[b]!
    );
  }
}
