/**
 * Logs a training run to Weights & Biases, beside the training and never in its way.
 * @module
 */
import {
  WandbApi,
  WandbRefusal,
  type WandbRunRequest,
  type WandbRunState,
  type WandbServer,
  type WandbStream,
  WandbUnavailable,
} from "./wandb_api.ts";

/** What a person asks for. */
export interface WandbFlags {
  readonly project: string;
  /** Team or user; the account's default when absent. */
  readonly entity?: string | undefined;
  /** Name of the run; W&B makes one up when absent. */
  readonly name?: string | undefined;
}

/** Environment variables that {@link wandbServer} reads. */
export const WANDB_VARIABLES = [
  "WANDB_API_KEY",
  "WANDB_BASE_URL",
  "WANDB_MODE",
] as const;

const HOME = "https://api.wandb.ai";
const SEND_MODES = ["online", "run", "shared"];
const SILENT_MODES = ["offline", "dryrun", "disabled"];

/**
 * The server that the environment names; undefined where WANDB_MODE forbids to send.
 * @throws {Error} If the key is missing or malformed, or the mode or address is none; never shows the key.
 */
export function wandbServer(
  env: (name: typeof WANDB_VARIABLES[number]) => string | undefined,
): WandbServer | undefined {
  const refuse = (what: string): Error =>
    new Error(`Cannot log to Weights & Biases: expected ${what}`);
  const mode = env("WANDB_MODE") || "online";
  if (SILENT_MODES.includes(mode)) return undefined;
  if (!SEND_MODES.includes(mode)) {
    throw refuse(
      `online, offline or disabled in WANDB_MODE: got ${JSON.stringify(mode)}`,
    );
  }
  const apiKey = env("WANDB_API_KEY")?.trim() ?? "";
  if (apiKey === "") {
    throw refuse(
      "a key in the environment variable WANDB_API_KEY: got none: set it, or WANDB_MODE=offline, or leave --wandb out",
    );
  }
  if (!/^[!-~]+$/.test(apiKey)) {
    throw refuse(
      "one word in WANDB_API_KEY: got spaces or other signs in it: copy the key again",
    );
  }
  const address = env("WANDB_BASE_URL") || HOME;
  if (!/^https?:\/\/[^\s/?#]+[^\s?#]*$/.test(address)) {
    throw refuse(
      `an address such as ${HOME} in WANDB_BASE_URL: got ${
        JSON.stringify(address)
      }`,
    );
  }
  return { baseUrl: address.replace(/\/+$/, ""), apiKey };
}

/**
 * Asks for the permission to reach a server, on a terminal.
 * @throws {Error} If it is not given: names the flag.
 */
export function requireNet({ baseUrl }: WandbServer): void {
  const { host } = new URL(baseUrl);
  const { state } = Deno.permissions.requestSync({ name: "net", host });
  if (state === "granted") return;
  throw new Error(
    `Cannot log to Weights & Biases: expected permission to reach ${host}: got none: run with --allow-net=${host}`,
  );
}

/** A run to log. */
export interface WandbOptions {
  readonly server: WandbServer;
  readonly run: WandbRunRequest;
  /** Whether an earlier process may have made the run. */
  readonly mayExist: boolean;
  /** Tells a person what happens, in one line. */
  readonly note: (text: string) => void;
  /** Milliseconds between requests with news; default 5 s. */
  readonly sendEveryMs?: number;
  /** Milliseconds without news after which a sign of life is sent; default 30 s. */
  readonly aliveEveryMs?: number;
  /** Milliseconds before the first new try, doubled up to a minute; default 1 s. */
  readonly retryMs?: number;
}

interface QueuedLine {
  readonly step: number;
  readonly text: string;
}

/** Lines in a request. */
const MAX_LINES = 1000;
const MAX_RETRY_MS = 60_000;

/** A run at Weights & Biases. Nothing it meets ends the training. */
export class WandbRun {
  readonly #options: WandbOptions;
  readonly #stop = new AbortController();
  readonly #api: WandbApi;
  readonly #startedAt = Date.now();
  readonly #work: Promise<void>;
  #queue: QueuedLine[] = [];
  /** Step of the last line that the server has or the queue holds. */
  #lastStep = -1;
  #summary: string | undefined;
  #exitCode: number | undefined;
  readonly #wake = Promise.withResolvers<void>();
  #isOver = false;
  #hasComplained = false;

  /** Begins in the background to make the run, or to find it again. */
  constructor(options: WandbOptions) {
    this.#options = options;
    this.#api = new WandbApi(options.server, this.#stop.signal);
    this.#work = this.#run();
  }

  /**
   * Logs the numbers of a step; returns at once. Steps come in order, and what the server
   * has of a run that is resumed is not sent again.
   * @param time Seconds since 1970.
   */
  add(
    step: number,
    time: number,
    scalars: Readonly<Record<string, number>>,
  ): void {
    if (this.#isOver || step <= this.#lastStep) return;
    this.#lastStep = step;
    const text = JSON.stringify({ ...scalars, _step: step, _timestamp: time });
    this.#queue.push({ step, text });
    const runtime = Math.round((Date.now() - this.#startedAt) / 1000);
    this.#summary = JSON.stringify({
      ...scalars,
      _step: step,
      _timestamp: time,
      _wandb: { runtime },
    });
  }

  /**
   * Sends what is left and ends the run.
   * @param exitCode 0 for a run that reached its end.
   * @param timeoutMs How long it may take; what is not sent then is said.
   */
  async finish(exitCode: number, timeoutMs = 15_000): Promise<void> {
    this.#exitCode ??= exitCode;
    this.#wake.resolve();
    const timer = setTimeout(() => this.#stop.abort(), timeoutMs);
    await this.#work;
    clearTimeout(timer);
  }

  /** All of it, until the end is sent or it is no use. */
  async #run(): Promise<void> {
    try {
      const run = await this.#connect();
      await this.#sendAll(run);
    } catch (error) {
      this.#complain(error);
    }
    this.#isOver = true;
    this.#queue = [];
  }

  async #connect(): Promise<WandbRunState> {
    const { run, mayExist, server, note } = this.#options;
    const state = await this.#patiently(() => this.#api.open(run, mayExist));
    this.#queue = this.#queue.filter(({ step }) => step > state.lastStep);
    this.#lastStep = Math.max(this.#lastStep, state.lastStep);
    const site = server.baseUrl === HOME ? "https://wandb.ai" : server.baseUrl;
    const place = [state.entity, state.project].map(encodeURIComponent);
    note(
      `W&B: ${site}/${place.join("/")}/runs/${encodeURIComponent(state.id)}`,
    );
    return state;
  }

  async #sendAll(run: WandbRunState): Promise<void> {
    const { sendEveryMs = 5000, aliveEveryMs = 30_000 } = this.#options;
    let offset = run.nLines;
    let sentAt = Date.now();
    while (true) {
      if (this.#exitCode === undefined) await this.#sleep(sendEveryMs, true);
      const lines = this.#queue.slice(0, MAX_LINES).map(({ text }) => text);
      const isLast = this.#exitCode !== undefined &&
        lines.length === this.#queue.length;
      const isSilent = Date.now() - sentAt >= aliveEveryMs;
      if (lines.length === 0 && !isLast && !isSilent) continue;
      await this.#send(run, {
        ...(lines.length > 0 && { history: { offset, lines } }),
        ...(lines.length > 0 && this.#summary !== undefined &&
          { summary: this.#summary }),
        ...(isLast && { exitCode: this.#exitCode! }),
      });
      this.#queue.splice(0, lines.length);
      offset += lines.length;
      sentAt = Date.now();
      if (isLast) return;
    }
  }

  async #send(run: WandbRunState, stream: WandbStream): Promise<void> {
    await this.#patiently(() => this.#api.stream(run, stream));
  }

  /** Tries until it works, is refused or the time at the end is over. */
  async #patiently<T>(request: () => Promise<T>): Promise<T> {
    const { retryMs = 1000 } = this.#options;
    for (let wait = retryMs;; wait *= 2) {
      try {
        return await request();
      } catch (error) {
        if (!(error instanceof WandbUnavailable)) throw error;
        this.#stop.signal.throwIfAborted();
        this.#complain(error);
        // At the end there is no time for long waits.
        const isEnding = this.#exitCode !== undefined;
        const longest = isEnding ? retryMs : MAX_RETRY_MS;
        const waitMs = Math.max(wait, error.retryAfterMs);
        await this.#sleep(Math.min(waitMs, longest), !isEnding);
        this.#stop.signal.throwIfAborted();
      }
    }
  }

  /** Waits, at most until the time at the end is over, or until `finish` if it may wake it. */
  async #sleep(ms: number, mayWake: boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    const { signal } = this.#stop;
    const end = (): void => resolve();
    signal.addEventListener("abort", end);
    await (mayWake ? Promise.race([promise, this.#wake.promise]) : promise);
    signal.removeEventListener("abort", end);
    clearTimeout(timer);
  }

  /** Says once that the server does not answer, and always why nothing more is logged. */
  #complain(error: unknown): void {
    const { note } = this.#options;
    const reason = error instanceof Error ? error.message : String(error);
    if (this.#stop.signal.aborted) {
      note(
        `W&B: ${this.#queue.length} lines were not sent in time; the same command sends them`,
      );
    } else if (error instanceof WandbUnavailable) {
      if (!this.#hasComplained) {
        note(`W&B does not answer, and is tried again: ${reason}`);
      }
      this.#hasComplained = true;
    } else {
      const said = error instanceof WandbRefusal ? "refused" : "failed";
      note(`W&B ${said}, and nothing more is sent to it: ${reason}`);
    }
  }
}
