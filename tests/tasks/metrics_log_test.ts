import { deepEqual, equal, match, throws } from "node:assert/strict";
import { join } from "node:path";
import { MetricsLog, readMetricsFile } from "../../tasks/metrics_log.ts";
import { TensorBoardWriter } from "../../tasks/tensorboard_log.ts";
import { metricsLine } from "./metrics_lines.ts";
import { scratchFolder } from "./run_task.ts";
import { type DecodedEvent, decodeEvents } from "./tensorboard_events.ts";

/** Logs steps in a process of their own, so to speak. */
function logSteps(path: string, steps: readonly number[]): void {
  using log = new MetricsLog(path);
  for (const step of steps) log.add(metricsLine(step));
}

const stepsOf = (path: string): number[] =>
  readMetricsFile(path).lines.map(({ step }) => step);

Deno.test("MetricsLog goes on where a resumed run begins", () => {
  using folder = scratchFolder();
  const path = join(folder.path, "metrics.jsonl");
  logSteps(path, [0, 10, 20, 30]);
  logSteps(path, [20, 30, 40]);
  deepEqual(stepsOf(path), [0, 10, 20, 30, 40]);
  deepEqual(readMetricsFile(path).lines[2], metricsLine(20));
});

Deno.test("MetricsLog drops a line that was cut off, and whole ones that are damaged", () => {
  using folder = scratchFolder();
  const path = join(folder.path, "metrics.jsonl");
  logSteps(path, [0, 10]);
  const text = Deno.readTextFileSync(path);
  Deno.writeTextFileSync(path, `${text}{"step": "x"}\nnull\n{"step": 15, "lo`);
  equal(readMetricsFile(path).nDamaged, 3);
  logSteps(path, [20]);
  deepEqual(stepsOf(path), [0, 10, 20]);
  equal(readMetricsFile(path).nDamaged, 0);
});

Deno.test("MetricsLog says in one line where it cannot write, and leaves no half copy", () => {
  using folder = scratchFolder();
  const path = join(folder.path, "metrics.jsonl");
  Deno.mkdirSync(path);
  Deno.mkdirSync(join(path, "in the way"));
  using log = new MetricsLog(path);
  throws(
    () => log.add(metricsLine(0)),
    /^Error: Cannot read ".*metrics\.jsonl": [^\n]+$/,
  );
  const missing = new MetricsLog(join(folder.path, "none", "metrics.jsonl"));
  throws(
    () => missing.add(metricsLine(0)),
    /^Error: Cannot write ".*metrics\.jsonl": no such file or folder[^\n]+$/,
  );
  deepEqual([...Deno.readDirSync(folder.path)].map(({ name }) => name), [
    "metrics.jsonl",
  ]);
});

/** Lets a disk take so many bytes more, and then be full, until the result is disposed of. */
function smallDisk(bytes: number): Disposable {
  const { writeSync } = Deno.FsFile.prototype;
  let left = bytes;
  Deno.FsFile.prototype.writeSync = function (data): number {
    if (left === 0) {
      const reason = "No space left on device (os error 28)";
      throw Object.assign(new Error(reason), { code: "ENOSPC" });
    }
    const n = writeSync.call(this, data.subarray(0, left));
    left -= n;
    return n;
  };
  return {
    [Symbol.dispose]: () => {
      Deno.FsFile.prototype.writeSync = writeSync;
    },
  };
}

Deno.test("MetricsLog says that the disk is full, and goes on from the whole lines when it is not", () => {
  using folder = scratchFolder();
  const path = join(folder.path, "metrics.jsonl");
  const lineBytes = JSON.stringify(metricsLine(10)).length + 1;
  {
    using log = new MetricsLog(path);
    log.add(metricsLine(0));
    using _ = smallDisk(lineBytes + 7);
    log.add(metricsLine(10));
    throws(
      () => log.add(metricsLine(20)),
      /^Error: Cannot write ".*metrics\.jsonl": No space left on device \(os error 28\): free some space and run the same command again$/,
    );
  }
  equal(readMetricsFile(path).nDamaged, 1);
  logSteps(path, [20, 30]);
  deepEqual(stepsOf(path), [0, 10, 20, 30]);
});

/** Events of every file in a folder, in the order in which TensorBoard reads them. */
function eventsIn(folder: string): DecodedEvent[][] {
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  for (const name of names) match(name, /^events\.out\.tfevents\.\d{10}\./);
  return names.map((name) =>
    decodeEvents(Deno.readFileSync(join(folder, name)))
  );
}

Deno.test("TensorBoardWriter begins a new file when a run goes on, and says from which step", () => {
  using folder = scratchFolder();
  const path = join(folder.path, "new", "tb");
  for (const first of [0, 20]) {
    using writer = TensorBoardWriter.open(path, 1_764_000_000.5);
    for (const step of [first, first + 10, first + 20]) {
      writer.add(step, 1_764_000_001 + step, { "train/loss": 100 - step });
    }
  }
  const [before, after, ...rest] = eventsIn(path);
  deepEqual(rest, []);
  const start = (step: number) => [
    { wallTime: 1_764_000_000.5, step: 0, version: "brain.Event:2" },
    { wallTime: 1_764_000_001 + step, step, sessionStatus: 1 },
  ];
  const scalar = (step: number) => ({
    wallTime: 1_764_000_001 + step,
    step,
    scalars: { "train/loss": 100 - step },
  });
  deepEqual(before, [...start(0), ...[0, 10, 20].map(scalar)]);
  deepEqual(after, [...start(20), ...[20, 30, 40].map(scalar)]);
});

Deno.test("TensorBoardWriter says in one line where it cannot write", () => {
  using folder = scratchFolder();
  const path = join(folder.path, "file");
  Deno.writeTextFileSync(path, "");
  throws(
    () => TensorBoardWriter.open(path, 0),
    /^Error: Cannot make folder ".*file": [^\n]+$/,
  );
});
