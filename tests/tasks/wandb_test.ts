import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { join } from "node:path";
import { METRICS_FILE, readMetricsFile } from "../../tasks/metrics_log.ts";
import { RunLoggers } from "../../tasks/run_loggers.ts";
import { WandbRun, wandbServer } from "../../tasks/wandb.ts";
import { metricsLine } from "./metrics_lines.ts";
import { scratchFolder } from "./run_task.ts";
import { FakeWandb } from "./wandb_server.ts";

/** Quick, so that tests are. */
const PACE = { sendEveryMs: 5, retryMs: 5, aliveEveryMs: 60_000 };

const untilSent = async (condition: () => boolean): Promise<void> => {
  const end = Date.now() + 10_000;
  while (!condition()) {
    ok(Date.now() < end, "it happens within ten seconds");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
};

interface Setting {
  readonly folder: string;
  readonly baseUrl: string;
  readonly notes?: string[];
  readonly project?: string;
}

function openLoggers(
  { folder, baseUrl, notes = [], project = "olmo" }: Setting,
): RunLoggers {
  return new RunLoggers({
    folder,
    config: { lr: 1e-3, d_sae: 64 },
    wandb: {
      project,
      name: "my run",
      server: { baseUrl, apiKey: FakeWandb.KEY },
      pace: PACE,
    },
    note: (text) => notes.push(text),
  });
}

Deno.test("a run is made with its settings, logged line by line and ended", async () => {
  using folder = scratchFolder();
  await using server = new FakeWandb();
  const notes: string[] = [];
  const { baseUrl } = server;
  await using loggers = openLoggers({ folder: folder.path, baseUrl, notes });
  for (const step of [0, 10, 20]) loggers.add(metricsLine(step));
  await untilSent(() =>
    server.runs.size === 1 && server.run.history.length === 3
  );
  for (const step of [30, 40]) loggers.add(metricsLine(step));
  await loggers.finish(0);
  const { run } = server;
  deepEqual([run.project, run.entity, run.name], ["olmo", "me", "my run"]);
  deepEqual(run.config, { lr: { value: 1e-3 }, d_sae: { value: 64 } });
  deepEqual(server.steps, [0, 10, 20, 30, 40]);
  equal(run.history[1]!["train/loss"], metricsLine(10).loss);
  equal(typeof run.history[1]!["_timestamp"], "number");
  equal(run.summary?.["train/L0"], metricsLine(40).L0);
  equal(run.exitCode, 0);
  const [id] = server.runs.keys();
  deepEqual(notes, [`W&B: ${baseUrl}/me/olmo/runs/${id}`]);
});

Deno.test("failures that pass lose no line and repeat none", async () => {
  using folder = scratchFolder();
  await using server = new FakeWandb();
  server.misfortunes.push(
    { path: "graphql", status: 500 },
    { path: "file_stream", status: 429 },
    { path: "file_stream", status: 502, isKept: true },
    { path: "file_stream", status: 500 },
    { path: "file_stream", status: 503, isKept: true },
  );
  const notes: string[] = [];
  const { baseUrl } = server;
  await using loggers = openLoggers({ folder: folder.path, baseUrl, notes });
  for (let step = 0; step < 200; step++) {
    loggers.add(metricsLine(step));
    if (step % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 8));
  }
  await loggers.finish(0);
  deepEqual(server.misfortunes, []);
  deepEqual(server.steps, Array.from({ length: 200 }, (_, step) => step));
  equal(server.run.exitCode, 0);
  deepEqual(notes.length, 2);
  match(notes[0]!, /^W&B does not answer, and is tried again: 500 /);
});

Deno.test("a run that goes on is the same run, from the line where it stopped", async () => {
  using folder = scratchFolder();
  await using server = new FakeWandb();
  const setting = { folder: folder.path, baseUrl: server.baseUrl };
  {
    await using loggers = openLoggers(setting);
    for (const step of [0, 10, 20, 30]) loggers.add(metricsLine(step));
    await loggers.finish(130);
    equal(server.run.exitCode, 130);
  }
  // From a checkpoint after step 10: steps 20 and 30 are computed again.
  await using loggers = openLoggers(setting);
  for (const step of [20, 30, 40]) loggers.add(metricsLine(step));
  await loggers.finish(0);
  deepEqual(server.steps, [0, 10, 20, 30, 40]);
  equal(server.run.exitCode, 0);
});

Deno.test("lines that never arrived are sent when the run goes on", async () => {
  using folder = scratchFolder();
  const gone = new FakeWandb();
  const { port, baseUrl } = gone;
  await gone[Symbol.asyncDispose]();
  const setting = { folder: folder.path, baseUrl };
  const notes: string[] = [];
  {
    // As after kill -9: nothing was sent, and nothing was ended.
    const wandb = new WandbRun({
      server: { baseUrl, apiKey: FakeWandb.KEY },
      run: {
        id: "x",
        project: "olmo",
        entity: undefined,
        name: undefined,
        config: {},
      },
      mayExist: false,
      note: (text) => notes.push(text),
      ...PACE,
    });
    const loggers = new RunLoggers({
      folder: folder.path,
      config: {},
      note: () => {},
    });
    for (const step of [0, 10, 20]) {
      loggers.add(metricsLine(step));
      wandb.add(step, 0, {});
    }
    await loggers.finish(1);
    await wandb.finish(1, 30);
  }
  match(notes[0]!, /^W&B does not answer, and is tried again: /);
  match(notes[1]!, /^W&B: 3 lines were not sent in time/);
  equal(notes.length, 2);
  await using server = new FakeWandb(port);
  {
    await using loggers = openLoggers(setting);
    for (const step of [20, 30]) loggers.add(metricsLine(step));
    await loggers.finish(0);
  }
  deepEqual(server.steps, [0, 10, 20, 30]);
  // A run that was complete before: everything that W&B lacks, here nothing.
  {
    await using loggers = openLoggers(setting);
    await loggers.finish(0);
  }
  deepEqual(server.steps, [0, 10, 20, 30]);
  equal(server.run.exitCode, 0);
});

Deno.test("a server that is away holds up neither the training nor its end", async () => {
  const gone = new FakeWandb();
  const { baseUrl } = gone;
  await gone[Symbol.asyncDispose]();
  const wandb = new WandbRun({
    server: { baseUrl, apiKey: FakeWandb.KEY },
    run: {
      id: "x",
      project: "p",
      entity: undefined,
      name: undefined,
      config: {},
    },
    mayExist: false,
    note: () => {},
    retryMs: 60_000,
  });
  const started = performance.now();
  for (let step = 0; step < 1000; step++) wandb.add(step, 0, { loss: 1 });
  ok(performance.now() - started < 1000, "adding does not wait");
  await wandb.finish(0, 50);
  ok(
    performance.now() - started < 5000,
    "the end waits only as long as it may",
  );
});

Deno.test("a refusal ends the logging, not the run, and says why", async () => {
  for (
    const [project, key, reason] of [
      ["forbidden", FakeWandb.KEY, "permission denied"],
      ["olmo", "wrong", '401 Unauthorized {"error":"wrong key"}'],
    ] as const
  ) {
    using folder = scratchFolder();
    await using server = new FakeWandb();
    const notes: string[] = [];
    await using loggers = new RunLoggers({
      folder: folder.path,
      config: {},
      wandb: {
        project,
        server: { baseUrl: server.baseUrl, apiKey: key },
        pace: PACE,
      },
      note: (text) => notes.push(text),
    });
    loggers.add(metricsLine(0));
    await untilSent(() => notes.length > 0);
    loggers.add(metricsLine(10));
    await loggers.finish(0);
    deepEqual(notes, [
      `W&B refused, and nothing more is sent to it: ${reason}`,
    ]);
    const { lines } = readMetricsFile(join(folder.path, METRICS_FILE));
    deepEqual(lines.map(({ step }) => step), [0, 10]);
  }
});

Deno.test("a run without news says that it is alive", async () => {
  await using server = new FakeWandb();
  const wandb = new WandbRun({
    server: { baseUrl: server.baseUrl, apiKey: FakeWandb.KEY },
    run: {
      id: "x",
      project: "p",
      entity: "team/a",
      name: undefined,
      config: {},
    },
    mayExist: false,
    note: () => {},
    sendEveryMs: 2,
    aliveEveryMs: 10,
  });
  await untilSent(() => server.nAlive >= 2);
  await wandb.finish(0);
  equal(server.run.entity, "team/a");
  equal(server.run.exitCode, 0);
});

Deno.test("another project is another run", async () => {
  using folder = scratchFolder();
  await using server = new FakeWandb();
  const setting = { folder: folder.path, baseUrl: server.baseUrl };
  for (const project of ["a", "b"]) {
    await using loggers = openLoggers({ ...setting, project });
    loggers.add(metricsLine(0));
    await loggers.finish(0);
  }
  equal(server.runs.size, 2);
});

Deno.test("wandbServer() reads the environment, and says what is missing without showing the key", () => {
  const of = (variables: Record<string, string>) =>
    wandbServer((name) => variables[name]);
  const WANDB_API_KEY = "0123abc";
  deepEqual(of({ WANDB_API_KEY }), {
    baseUrl: "https://api.wandb.ai",
    apiKey: WANDB_API_KEY,
  });
  deepEqual(of({ WANDB_API_KEY, WANDB_BASE_URL: "http://wandb.lan:8080/" }), {
    baseUrl: "http://wandb.lan:8080",
    apiKey: WANDB_API_KEY,
  });
  equal(of({ WANDB_MODE: "offline" }), undefined);
  equal(of({ WANDB_MODE: "disabled", WANDB_API_KEY }), undefined);
  for (
    const [variables, message] of [
      [
        {},
        /: expected a key in the environment variable WANDB_API_KEY: got none: set it, or WANDB_MODE=offline/,
      ],
      [{ WANDB_API_KEY: "two words" }, /: expected one word in WANDB_API_KEY/],
      [
        { WANDB_API_KEY, WANDB_MODE: "of" },
        /: expected online, offline or disabled in WANDB_MODE: got "of"/,
      ],
      [
        { WANDB_API_KEY, WANDB_BASE_URL: "wandb" },
        /: expected an address such as .* in WANDB_BASE_URL: got "wandb"/,
      ],
    ] as const
  ) {
    throws(() => of(variables), (error: Error) => {
      match(error.message, message);
      match(error.message, /^Cannot log to Weights & Biases: [^\n]+$/);
      return !error.message.includes("two words");
    });
  }
});
