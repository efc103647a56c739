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

/** Form of what is kept, and of our kernels; grows when either changes so that old timings say nothing. */
const VERSION = 2;

type Json = Readonly<Record<string, unknown>>;

/** What timings hold for: an adapter and, as far as it tells, its driver. */
export function adapterIdentity(
  { vendor, architecture, device, description }: Pick<
    GPUAdapterInfo,
    "vendor" | "architecture" | "device" | "description"
  >,
): string {
  const parts = [description, vendor, architecture, device];
  return parts.filter((part) => part).join(", ") || "unnamed adapter";
}

/**
 * Decisions by key, for one adapter. Three kinds are told apart: those that this process has found out are kept in the
 * store; those and all that were used go into checkpoints; the others of the store can be forgotten without a trace.
 */
export class Tuning {
  /** Whether unknown things are timed. */
  mode: TuningMode = "off";
  readonly #adapter: string;
  readonly #known = new Map<string, unknown>();
  readonly #used = new Set<string>();
  readonly #found = new Set<string>();
  readonly #adopted = new Set<string>();
  #store: TuningStore | undefined;

  /**
   * Nothing is decided yet.
   * @param adapter The adapter that decisions are for; see {@link adapterIdentity}.
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

  /** Whether it has to be found out by timing: where unknown, or with mode "force" once a process. */
  isWanted(key: string): boolean {
    if (this.mode === "off") return false;
    return !this.#known.has(key) ||
      (this.mode === "force" && !this.#found.has(key) &&
        !this.#adopted.has(key));
  }

  /** Decides; values are JSON. */
  set(key: string, value: unknown): void {
    this.#known.set(key, value);
    this.#used.add(key);
    this.#found.add(key);
  }

  /** What this process has used or found out: with it another one takes the same kernels. */
  decisions(): Record<string, unknown> {
    const used = [...this.#used].sort();
    return Object.fromEntries(used.map((key) => [key, this.#known.get(key)]));
  }

  /**
   * Takes the decisions of another process, as those of a checkpoint, so that the same kernels run. What a store gave and
   * nobody has used is forgotten: the other process decided without it. Nothing of this is kept in the store, since it
   * may come from another adapter. What is no object of decisions is ignored.
   */
  use(decisions: unknown): void {
    if (!isObject(decisions)) return;
    for (const key of [...this.#known.keys()]) {
      if (!this.#used.has(key)) this.#known.delete(key);
    }
    for (const [key, value] of Object.entries(decisions)) {
      if (value === undefined || value === null) continue;
      this.#known.set(key, value);
      this.#used.add(key);
      this.#adopted.add(key);
      this.#found.delete(key);
    }
  }

  /**
   * Takes what a store has for this adapter, and keeps in it what is found out from now on; not with mode "off".
   * A store that fails is as good as an empty one.
   */
  async attach(store: TuningStore, mode: TuningMode): Promise<void> {
    this.mode = mode;
    this.#store = mode === "off" ? undefined : store;
    const entries = await this.#stored();
    for (const [key, value] of Object.entries(entries[this.#adapter] ?? {})) {
      if (!this.#known.has(key) && value !== null) this.#known.set(key, value);
    }
  }

  /** Keeps what was found out, beside what others, and other adapters, have there. */
  async save(): Promise<void> {
    if (!this.#store || this.mode === "off" || this.#found.size === 0) return;
    const others = await this.#stored();
    const found = [...this.#found].map((key) => [key, this.#known.get(key)]);
    const ours = { ...others[this.#adapter], ...Object.fromEntries(found) };
    try {
      await this.#store.save({
        version: VERSION,
        adapters: { ...others, [this.#adapter]: ours },
      });
    } catch {
      // It is timed again, then.
    }
  }

  async #stored(): Promise<Record<string, Json>> {
    try {
      return entriesOf(await this.#store?.load());
    } catch {
      return {};
    }
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
