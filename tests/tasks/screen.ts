/**
 * A terminal for tests: what is on its screen after what was written to it.
 * @module
 */
import type { ProgressOutput } from "../../tasks/progress.ts";

/** Knows the few control sequences that tasks write, and refuses others. */
export class Screen implements ProgressOutput {
  readonly isTerminal = true;
  /** Everything that was written, a piece for each call. */
  readonly written: string[] = [];
  ms = 1000;
  #lines: string[] = [""];
  #row = 0;
  #column = 0;

  /** A screen of any height, unless it is said; what scrolls out is lost to the cursor. */
  constructor(public width: number, public height = 1000) {}

  columns(): number {
    return this.width;
  }

  rows(): number {
    return this.height;
  }

  now(): number {
    return this.ms;
  }

  /** What a person sees, with what has scrolled out at the top. */
  get text(): string {
    return this.#lines.map((line) => line.trimEnd()).join("\n");
  }

  /** Where the next sign is put; the first column is 0. */
  get column(): number {
    return this.#column;
  }

  write(text: string): void {
    this.written.push(text);
    // deno-lint-ignore no-control-regex -- terminals are controlled so
    for (const [token] of text.matchAll(/\x1b\[\d*[A-Za-z]|[^]/g)) {
      if (token === "\n") this.#nextLine();
      else if (token === "\r") this.#column = 0;
      else if (token.length > 1) this.#control(token);
      else this.#put(token);
    }
  }

  #control(sequence: string): void {
    const line = this.#lines[this.#row]!;
    if (sequence === "\x1b[K") {
      this.#lines[this.#row] = line.slice(0, this.#column);
    } else if (sequence === "\x1b[J") {
      this.#lines[this.#row] = line.slice(0, this.#column);
      this.#lines.length = this.#row + 1;
    } else if (sequence.endsWith("A")) {
      const top = Math.max(0, this.#lines.length - this.height);
      this.#row = Math.max(top, this.#row - parseInt(sequence.slice(2)));
    } else throw new Error(`unknown sequence ${JSON.stringify(sequence)}`);
  }

  #put(sign: string): void {
    const line = this.#lines[this.#row]!.padEnd(this.#column);
    this.#lines[this.#row] = line.slice(0, this.#column) + sign +
      line.slice(this.#column + 1);
    this.#column++;
    if (this.#column === this.width) this.#nextLine();
  }

  #nextLine(): void {
    this.#row++;
    this.#column = 0;
    this.#lines[this.#row] ??= "";
  }
}
