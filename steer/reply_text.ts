import type { StreamDecoder } from "../core/tokenizer.ts";

/**
 * The text of a reply as its tokens come, which ends before the first of some stop strings. Text that may be the
 * beginning of one is held back until it is certain that it is not.
 */
export class ReplyText {
  readonly #decoder: StreamDecoder;
  readonly #stops: readonly string[];
  #held = "";
  #isStopped = false;

  /**
   * No text yet.
   * @param decoder A fresh one of the model's tokenizer.
   * @param stops Any number of strings.
   * @throws {RangeError} If one of them is empty.
   */
  constructor(decoder: StreamDecoder, stops: readonly string[] = []) {
    if (stops.includes("")) {
      throw new RangeError(
        "Cannot stop at a string: expected at least one character: got none",
      );
    }
    this.#decoder = decoder;
    this.#stops = stops;
  }

  /** Whether a stop string has come; no more text will. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Takes a token, and returns the text that is certain now. */
  push(id: number): string {
    return this.#isStopped ? "" : this.#take(this.#decoder.push(id));
  }

  /** The rest, once no more tokens come. */
  end(): string {
    if (this.#isStopped) return "";
    const text = this.#take(this.#decoder.end());
    if (this.#isStopped) return text;
    const rest = this.#held;
    this.#held = "";
    return text + rest;
  }

  #take(fresh: string): string {
    const text = this.#held + fresh;
    const found = this.#stops.map((stop) => text.indexOf(stop))
      .filter((at) => at >= 0);
    if (found.length > 0) {
      this.#isStopped = true;
      this.#held = "";
      return text.slice(0, Math.min(...found));
    }
    const nHeld = Math.max(0, ...this.#stops.map((stop) => begun(text, stop)));
    this.#held = text.slice(text.length - nHeld);
    return text.slice(0, text.length - nHeld);
  }
}

/** Length of the longest end of `text` that `stop` begins with. */
function begun(text: string, stop: string): number {
  let n = Math.min(text.length, stop.length - 1);
  while (n > 0 && !text.endsWith(stop.slice(0, n))) n--;
  return n;
}
