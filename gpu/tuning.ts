/**
 * What was found out by timing on an adapter, so that it is found out once.
 * @module
 */

/** Whether things are timed: never, where unknown, or anew. */
export type TuningMode = "off" | "on" | "force";

/** Where what was found is kept between processes. */
export interface TuningStore {
  /** All that was kept; undefined where there is nothing. */
  load(): Promise<unknown>;
  /** Keeps it, instead of what was kept before. */
  save(json: unknown): Promise<void>;
}

/** Form of what is kept; grows when kernels change so that old timings say nothing. */
const VERSION = 1;

type Json = Readonly<Record<string, unknown>>;

/** Decisions by key, for one adapter. */
export class Tuning {
  /** Whether unknown things are timed. */
  mode: TuningMode = "off";
  readonly #adapter: string;
  readonly #known = new Map<string, unknown>();
  readonly #used = new Set<string>();
  #store: TuningStore | undefined;

  /**
   * Nothing is decided yet.
   * @param adapter Name of the adapter that decisions are for.
   */
  constructor(adapter: string) {
    this.#adapter = adapter;
  }

  /** Whether nothing was decided; what is asked for each launch is worth not asking. */
  get isEmpty(): boolean {
    return this.#known.size === 0;
  }

  /** What was decided; undefined where nothing was. */
  get(key: string): unknown {
    const value = this.#known.get(key);
    if (value !== undefined) this.#used.add(key);
    return value;
  }

  /** Whether it has to be found out by timing. */
  isWanted(key: string): boolean {
    if (this.mode === "off") return false;
    return !this.#known.has(key) ||
      (this.mode === "force" && !this.#used.has(key));
  }

  /** Decides; values are JSON. */
  set(key: string, value: unknown): void {
    this.#known.set(key, value);
    this.#used.add(key);
  }

  /** What this process has used or found out: with it another one takes the same kernels. */
  decisions(): Record<string, unknown> {
    const used = [...this.#used].sort();
    return Object.fromEntries(used.map((key) => [key, this.#known.get(key)]));
  }

  /** Takes decisions of another process, instead of what is known. */
  use(decisions: Readonly<Record<string, unknown>>): void {
    for (const [key, value] of Object.entries(decisions)) this.set(key, value);
  }

  /** Takes what a store has for this adapter, and keeps in it what is found out from now on; not with mode "off". */
  async attach(store: TuningStore, mode: TuningMode): Promise<void> {
    this.mode = mode;
    if (mode === "off") return;
    this.#store = store;
    const entries = entriesOf(await store.load());
    for (const [key, value] of Object.entries(entries[this.#adapter] ?? {})) {
      if (!this.#known.has(key)) this.#known.set(key, value);
    }
  }

  /** Keeps what is known, beside what other adapters have there. */
  async save(): Promise<void> {
    if (!this.#store) return;
    const others = entriesOf(await this.#store.load());
    const ours = {
      ...others[this.#adapter],
      ...Object.fromEntries(this.#known),
    };
    await this.#store.save({
      version: VERSION,
      adapters: { ...others, [this.#adapter]: ours },
    });
  }
}

/** Decisions by adapter; none where the JSON is of another form or version. */
function entriesOf(json: unknown): Record<string, Json> {
  if (!isObject(json) || json["version"] !== VERSION) return {};
  const adapters = json["adapters"];
  if (!isObject(adapters)) return {};
  const entries = Object.entries(adapters);
  return Object.fromEntries(
    entries.flatMap(([name, value]) => isObject(value) ? [[name, value]] : []),
  );
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
