/**
 * The metrics of a training run as JSON lines, one for each step that was measured.
 * @module
 */
import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileError } from "../core/files.ts";
import type { TrainMetrics } from "../train/train.ts";

/** The file of a run, which it goes on with when it is resumed. */
export class MetricsLog implements Disposable {
  readonly #path: string;
  #file: Deno.FsFile | undefined;

  /** Nothing is opened before the first line. */
  constructor(path: string) {
    this.#path = path;
  }

  /**
   * Appends a line. The first one drops those of its step and later, which a run
   * wrote after the checkpoint that it goes on from, and a last line that was cut off.
   * @throws {Error} If it cannot be written, as on a full disk.
   */
  add(metrics: TrainMetrics): void {
    const line = new TextEncoder().encode(`${JSON.stringify(metrics)}\n`);
    try {
      this.#file ??= this.#open(metrics.step);
      for (let written = 0; written < line.length;) {
        written += this.#file.writeSync(line.subarray(written));
      }
    } catch (cause) {
      throw fileError("write", this.#path, cause);
    }
  }

  #open(firstStep: number): Deno.FsFile {
    const earlier = existsSync(this.#path)
      ? Deno.readTextFileSync(this.#path).split("\n").slice(0, -1)
      : [];
    const kept = earlier.filter((line) => stepOf(line) < firstStep);
    const temporary = join(dirname(this.#path), `.${basename(this.#path)}.tmp`);
    const text = kept.map((line) => `${line}\n`).join("");
    Deno.writeTextFileSync(temporary, text);
    Deno.renameSync(temporary, this.#path);
    return Deno.openSync(this.#path, { append: true });
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file?.close();
  }
}

/** Step of a line; Infinity for what is no line of ours. */
function stepOf(line: string): number {
  try {
    const { step } = JSON.parse(line);
    return typeof step === "number" ? step : Infinity;
  } catch {
    return Infinity;
  }
}
