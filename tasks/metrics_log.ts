/**
 * The metrics of a training run as JSON lines, one for each step that was
 * measured: the source of truth for curves and trackers.
 * @module
 */
import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileError } from "../core/files.ts";
import type { MetricsLine } from "../train/metrics_line.ts";
import { AppendFile } from "./append_file.ts";

/** File of the metrics in the folder of a run. */
export const METRICS_FILE = "metrics.jsonl";

/** The file of a run, which it goes on with when it is resumed. */
export class MetricsLog implements Disposable {
  readonly #path: string;
  #file: AppendFile | undefined;

  /** Nothing is opened before the first line. */
  constructor(path: string) {
    this.#path = path;
  }

  /**
   * Appends a line. The first one drops those of its step and later, which a run
   * wrote after the checkpoint that it goes on from, and a last line that was cut off.
   * @throws {Error} If it cannot be written, as on a full disk.
   */
  add(metrics: { readonly step: number }): void {
    this.#file ??= this.#open(metrics.step);
    this.#file.write(new TextEncoder().encode(`${JSON.stringify(metrics)}\n`));
  }

  #open(firstStep: number): AppendFile {
    const kept = wholeLines(this.#path)
      .filter((line) => stepOf(line) < firstStep);
    const temporary = join(dirname(this.#path), `.${basename(this.#path)}.tmp`);
    try {
      const text = kept.map((line) => `${line}\n`).join("");
      Deno.writeTextFileSync(temporary, text);
      Deno.renameSync(temporary, this.#path);
    } catch (cause) {
      // A full disk is not helped by half a copy.
      if (existsSync(temporary)) Deno.removeSync(temporary);
      throw fileError("write", this.#path, cause);
    }
    return new AppendFile(this.#path, { append: true });
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file?.[Symbol.dispose]();
  }
}

/** What a metrics file holds. */
export interface LoggedMetrics {
  /** The lines in the file's order. */
  readonly lines: readonly MetricsLine[];
  /** Lines that are none of ours, such as one that was cut off. */
  readonly nDamaged: number;
}

/**
 * Reads a metrics file; nothing where there is none.
 * @throws {Error} If it cannot be read.
 */
export function readMetricsFile(path: string): LoggedMetrics {
  const text = read(path).split("\n").filter((line) => line.trim() !== "");
  const lines = text.map(lineOf).filter((line) => line !== undefined);
  return { lines, nDamaged: text.length - lines.length };
}

/** Lines that end as they should. */
function wholeLines(path: string): string[] {
  return read(path).split("\n").slice(0, -1);
}

function read(path: string): string {
  if (!existsSync(path)) return "";
  try {
    return Deno.readTextFileSync(path);
  } catch (cause) {
    throw fileError("read", path, cause);
  }
}

/** Step of a line; Infinity for what is no line of ours. */
function stepOf(line: string): number {
  return lineOf(line)?.step ?? Infinity;
}

/** A line that names its step; the rest is checked where it is used. */
function lineOf(line: string): MetricsLine | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    return undefined;
  }
  const isLine = typeof parsed === "object" && parsed !== null &&
    "step" in parsed && Number.isInteger(parsed.step);
  return isLine ? parsed as MetricsLine : undefined;
}
