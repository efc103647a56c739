/**
 * Ctrl-C in tasks that a person talks to.
 * @module
 */
// deno-lint-ignore-file no-console

/** The first Ctrl-C stops what is under way; a second one before {@link disarm} ends the process. */
export class Interrupts implements Disposable {
  readonly #stop: () => boolean;
  #isArmed = false;

  /** @param stop Stops what is under way; whether there was anything. */
  constructor(stop: () => boolean) {
    this.#stop = stop;
    Deno.addSignalListener("SIGINT", this.#listener);
  }

  /** The next Ctrl-C is a first one again. */
  disarm(): void {
    this.#isArmed = false;
  }

  readonly #listener = (): void => {
    if (this.#isArmed) Deno.exit(130);
    this.#isArmed = true;
    if (!this.#stop()) {
      console.error("\nCtrl-C again ends the chat, as /quit does");
    }
  };

  /** Stops listening. */
  [Symbol.dispose](): void {
    Deno.removeSignalListener("SIGINT", this.#listener);
  }
}
