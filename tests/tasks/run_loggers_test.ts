import { deepEqual, equal, throws } from "node:assert/strict";
import { join } from "node:path";
import { readMetricsFile } from "../../tasks/metrics_log.ts";
import { RunLoggers } from "../../tasks/run_loggers.ts";
import { scalarsOf } from "../../train/metrics_line.ts";
import { metricsLine } from "./metrics_lines.ts";
import { scratchFolder } from "./run_task.ts";
import { decodeEvents } from "./tensorboard_events.ts";

const silent = { config: {}, note: () => {} } as const;

/** Numbers as event files hold them. */
const rounded = (scalars: Record<string, number>) =>
  Object.fromEntries(
    Object.entries(scalars).map(([tag, value]) => [tag, Math.fround(value)]),
  );

Deno.test("RunLoggers writes lines and events of every step, and the densities", async () => {
  using folder = scratchFolder();
  const tensorboard = join(folder.path, "tb", "run");
  {
    await using loggers = new RunLoggers({
      folder: folder.path,
      tensorboard,
      ...silent,
    });
    for (const step of [0, 10]) loggers.add(metricsLine(step));
    // The last one never fired.
    loggers.addDensity(10, Float32Array.of(-3, -2, -1, -10));
  }
  const { lines } = readMetricsFile(join(folder.path, "metrics.jsonl"));
  deepEqual(lines, [metricsLine(0), metricsLine(10)]);
  const [file, ...others] = [...Deno.readDirSync(tensorboard)];
  deepEqual(others, []);
  const events = decodeEvents(
    Deno.readFileSync(join(tensorboard, file!.name)),
  );
  deepEqual(
    events.filter(({ scalars }) => scalars).map((
      { step, scalars },
    ) => [step, scalars]),
    [0, 10].map((step) => [step, rounded(scalarsOf(metricsLine(step)))]),
  );
  const histogram = events.at(-1)!.histogram!;
  equal(histogram.tag, "features/log10_density");
  deepEqual(histogram.head, [-3, -1, 3, -6, 14]);
  for (const { wallTime } of events) {
    equal(Math.abs(wallTime - Date.now() / 1000) < 60, true);
  }
});

Deno.test("RunLoggers writes only metrics.jsonl where nothing else is asked for", async () => {
  using folder = scratchFolder();
  const loggers = new RunLoggers({ folder: folder.path, ...silent });
  loggers.add(metricsLine(0));
  loggers.addDensity(0, [-3]);
  await loggers.finish(0);
  await loggers.finish(0);
  deepEqual([...Deno.readDirSync(folder.path)].map(({ name }) => name), [
    "metrics.jsonl",
  ]);
});

Deno.test("RunLoggers refuses a damaged record of the W&B run, by name", () => {
  using folder = scratchFolder();
  const path = join(folder.path, "wandb.json");
  const open = () =>
    new RunLoggers({
      folder: folder.path,
      ...silent,
      wandb: {
        project: "p",
        server: { baseUrl: "http://127.0.0.1:1", apiKey: "k" },
      },
    });
  for (const text of ["{", `{"id": "../../x", "project": "p"}`]) {
    Deno.writeTextFileSync(path, text);
    throws(open, /^\w+: Cannot read ".*wandb\.json": [^\n]+$/);
  }
});
