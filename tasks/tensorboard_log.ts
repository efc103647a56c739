/**
 * TensorBoard's event files of a run.
 * @module
 */
import { join } from "node:path";
import { fileError } from "../core/files.ts";
import {
  type EventContent,
  eventRecord,
  type Histogram,
} from "../train/tensorboard.ts";
import { AppendFile } from "./append_file.ts";

/** Event files that one process may begin in a folder within a second. */
const MAX_FILES = 1000;

/** Writes a new event file; TensorBoard reads all of a folder as one run. */
export class TensorBoardWriter implements Disposable {
  readonly #file: AppendFile;
  #hasStarted = false;

  private constructor(file: AppendFile) {
    this.#file = file;
  }

  /**
   * Begins a file in a folder, which is made where it is not there.
   * @param wallTime Seconds since 1970.
   * @throws {Error} If it cannot be written.
   */
  static open(folder: string, wallTime: number): TensorBoardWriter {
    try {
      Deno.mkdirSync(folder, { recursive: true });
    } catch (cause) {
      throw fileError("make folder", folder, cause);
    }
    const writer = new TensorBoardWriter(newFile(folder, wallTime));
    writer.#write(wallTime, 0, { kind: "version" });
    return writer;
  }

  /**
   * Logs the numbers of a step. The first call says that the session starts here, so that
   * TensorBoard forgets what a run logged for this step and later before it was resumed.
   * @param wallTime Seconds since 1970.
   * @param scalars Values by tag.
   * @throws {Error} If they cannot be written, as on a full disk.
   */
  add(
    step: number,
    wallTime: number,
    scalars: Readonly<Record<string, number>>,
  ): void {
    if (!this.#hasStarted) this.#write(wallTime, step, { kind: "start" });
    this.#hasStarted = true;
    this.#write(wallTime, step, { kind: "scalars", scalars });
  }

  /**
   * Logs a histogram.
   * @param wallTime Seconds since 1970.
   * @throws {Error} If it cannot be written, as on a full disk.
   */
  addHistogram(
    step: number,
    wallTime: number,
    tag: string,
    histogram: Histogram,
  ): void {
    this.#write(wallTime, step, { kind: "histogram", tag, histogram });
  }

  /** Closes the file; nothing can be added after. */
  close(): void {
    this.#file[Symbol.dispose]();
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #write(wallTime: number, step: number, content: EventContent): void {
    this.#file.write(eventRecord({ wallTime, step, content }));
  }
}

/** A name that TensorBoard knows as its own, later in the order of names than those before it. */
function newFile(folder: string, wallTime: number): AppendFile {
  const seconds = String(Math.floor(wallTime)).padStart(10, "0");
  for (let n = 0; n < MAX_FILES; n++) {
    const number = String(n).padStart(3, "0");
    const path = join(folder, `events.out.tfevents.${seconds}.${number}.ocs`);
    try {
      return new AppendFile(path, { createNew: true });
    } catch (cause) {
      if (!(cause instanceof Deno.errors.AlreadyExists)) throw cause;
    }
  }
  throw new Error(
    `Cannot write to "${folder}": expected a free name for an event file: got ${MAX_FILES} files of this second: try again`,
  );
}
