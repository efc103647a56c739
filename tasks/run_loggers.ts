/**
 * Everything that a training run's metrics are logged to, behind one interface.
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";
import { fileError } from "../core/files.ts";
import { type MetricsLine, scalarsOf } from "../train/metrics_line.ts";
import { histogramOf } from "../train/tensorboard.ts";
import { METRICS_FILE, MetricsLog, readMetricsFile } from "./metrics_log.ts";
import { TensorBoardWriter } from "./tensorboard_log.ts";
import { type WandbFlags, type WandbOptions, WandbRun } from "./wandb.ts";
import type { WandbServer } from "./wandb_api.ts";

/** What a run logs to; `metrics.jsonl` always. */
export interface RunLoggersOptions {
  /** Folder of the run. */
  readonly folder: string;
  /** Settings of the run, for trackers that show them. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Folder of TensorBoard's event files; none when absent. */
  readonly tensorboard?: string | undefined;
  /** Weights & Biases; nothing when absent. */
  readonly wandb?:
    | WandbFlags & {
      readonly server: WandbServer;
      /** Times of tests. */
      readonly pace?: Pick<
        WandbOptions,
        "sendEveryMs" | "aliveEveryMs" | "retryMs"
      >;
    }
    | undefined;
  /** Tells a person what happens, in one line. */
  readonly note: (text: string) => void;
}

/** File that keeps which run at W&B a folder is, for its resumption. */
const WANDB_FILE = "wandb.json";
const DENSITY_BINS = 40;
const NEVER_FIRED = -9.5; // Features that never fired are at log10(1e-10).

const WandbRecord: z.ZodType<{ id: string; project: string }> = z.object({
  id: z.string().regex(/^[\w-]+$/),
  project: z.string(),
});

/** Logs a run. Dispose of it, or `finish` it, when the run is over. */
export class RunLoggers implements AsyncDisposable {
  readonly #options: RunLoggersOptions;
  readonly #log: MetricsLog;
  readonly #wandb: WandbRun | undefined;
  #tensorboard: TensorBoardWriter | undefined;
  #hasLines = false;
  #isOver = false;

  /**
   * @param options The folder must be there, and claimed for this run.
   * @throws {Error} If the folder cannot be written, or its note of the W&B run is damaged.
   */
  constructor(options: RunLoggersOptions) {
    this.#options = options;
    this.#log = new MetricsLog(join(options.folder, METRICS_FILE));
    this.#wandb = wandbRun(options);
  }

  /**
   * Logs a line, in order of steps. The first one after a resumption replaces what was logged after the checkpoint.
   * @throws {Error} If a file cannot be written, as on a full disk.
   */
  add(line: MetricsLine): void {
    this.#log.add(line);
    if (!this.#hasLines) this.#catchUp(line.step);
    this.#hasLines = true;
    const time = Date.now() / 1000;
    const scalars = scalarsOf(line);
    if (this.#options.tensorboard !== undefined) {
      this.#tensorboard ??= TensorBoardWriter.open(
        this.#options.tensorboard,
        time,
      );
      this.#tensorboard.add(line.step, time, scalars);
    }
    this.#wandb?.add(line.step, time, scalars);
  }

  /**
   * Logs how often features fire, where a histogram can be shown.
   * @param logDensity log10 of each feature's share of tokens; those that never fired are left out.
   * @throws {Error} If a file cannot be written, as on a full disk.
   */
  addDensity(step: number, logDensity: Iterable<number>): void {
    const fired = [...logDensity].filter((value) => value > NEVER_FIRED);
    const histogram = histogramOf(fired, DENSITY_BINS);
    if (!histogram) return;
    const tag = "features/log10_density";
    this.#tensorboard?.addHistogram(step, Date.now() / 1000, tag, histogram);
  }

  /**
   * Sends what is left and closes everything; again does nothing.
   * @param exitCode 0 for a run that reached its end.
   */
  async finish(exitCode: number): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#log[Symbol.dispose]();
    this.#tensorboard?.close();
    // A run that was complete before may have been logged without a network.
    if (!this.#hasLines) this.#catchUp(Infinity);
    await this.#wandb?.finish(exitCode);
  }

  /** As `finish` of a run that was stopped. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.finish(1);
  }

  /** Gives W&B the lines before a step, of which it takes those that it lacks. */
  #catchUp(endStep: number): void {
    if (!this.#wandb) return;
    const path = join(this.#options.folder, METRICS_FILE);
    for (const line of readMetricsFile(path).lines) {
      if (line.step >= endStep) continue;
      this.#wandb.add(line.step, Date.now() / 1000, scalarsOf(line));
    }
  }
}

function wandbRun(
  { folder, config, wandb, note }: RunLoggersOptions,
): WandbRun | undefined {
  if (!wandb) return undefined;
  const { project, entity, name, server, pace } = wandb;
  const path = join(folder, WANDB_FILE);
  const before = readRecord(path, project);
  const id = before ?? newId();
  // Written first, so that a run that was killed meanwhile is found again.
  if (before === undefined) writeRecord(path, { id, project });
  return new WandbRun({
    server,
    run: { id, project, entity, name, config },
    mayExist: before !== undefined,
    note,
    ...pace,
  });
}

/** Id of the run that the folder was logged to in a project, if any. */
function readRecord(path: string, project: string): string | undefined {
  if (!existsSync(path)) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(Deno.readTextFileSync(path));
  } catch (cause) {
    throw fileError("read", path, cause);
  }
  const record = checkJson(WandbRecord, json, path);
  return record.project === project ? record.id : undefined;
}

function writeRecord(
  path: string,
  record: z.infer<typeof WandbRecord>,
): void {
  try {
    Deno.writeTextFileSync(path, `${JSON.stringify(record)}\n`);
  } catch (cause) {
    throw fileError("write", path, cause);
  }
}

/** Eight letters and digits, as W&B has them. */
function newId(): string {
  return crypto.randomUUID().replaceAll("-", "").slice(0, 8);
}
