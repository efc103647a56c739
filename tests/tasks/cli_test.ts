import { equal, match } from "node:assert/strict";
import { join } from "node:path";
import { runTask, scratchFolder } from "./run_task.ts";

Deno.test("runTask() prints the flags on standard output when --help is given", async () => {
  const { code, stdout, stderr } = await runTask(["collect", "--help"]);
  equal(code, 0);
  equal(stderr, "");
  match(stdout, /^Usage: \.\/ocs collect \[flags\]$/m);
  match(stdout, /^ {2}--skip-first NUMBER .*default 1\)$/m);
  match(stdout, /^ {2}--quiet /m);
});

Deno.test("runTask() writes an error in one line and exits with 1", async () => {
  const { code, stdout, stderr } = await runTask(["eval", "--jsno"]);
  equal(code, 1);
  equal(stdout, "");
  equal(
    stderr,
    "error: Cannot run eval: no flag --jsno: did you mean --json?\n",
  );
});

Deno.test("runTask() adds the stack when OCS_TRACE is 1", async () => {
  const env = { OCS_TRACE: "1" };
  const { code, stderr } = await runTask(["eval", "--jsno"], { env });
  equal(code, 1);
  match(stderr, /^error: Cannot run eval.*\n.*RangeError.*\n\s+at /);
});

Deno.test("runTask() takes paths from where the person types, and flags from a file, which flags override", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const config = { docs: 5, seed: 3, out: "corpus.jsonl" };
  Deno.writeTextFileSync(join(cwd, "config.json"), JSON.stringify(config));
  const words = ["--config", "config.json", "--docs", "2"];
  const { code, stderr } = await runTask(["storybook", ...words], { cwd });
  equal(code, 0, stderr);
  const lines = Deno.readTextFileSync(join(cwd, "corpus.jsonl")).trimEnd();
  equal(lines.split("\n").length, 2);
  const another = ["--out", "another.jsonl", "--quiet"];
  const quiet = await runTask(["storybook", ...words, ...another], { cwd });
  equal(quiet.stderr, "");
});

Deno.test("runTask() names the file when its flags are wrong", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const cases: [string, RegExp][] = [
    [
      '{"dcos": 5}',
      /^error: Cannot read ".*config\.json": no flag "dcos": did you mean "docs"\?\n$/,
    ],
    [
      '{"docs": 0.5}',
      /^error: Cannot read ".*config\.json": expected docs .*: got 0\.5\n$/,
    ],
    ['{"docs"', /^error: Cannot read ".*config\.json": expected JSON: .*\n$/],
    [
      "[1]",
      /^error: Cannot read ".*config\.json": expected an object of flags.*\n$/,
    ],
  ];
  for (const [text, message] of cases) {
    Deno.writeTextFileSync(join(cwd, "config.json"), text);
    const run = await runTask(["storybook", "--config=config.json"], { cwd });
    equal(run.code, 1);
    match(run.stderr, message);
  }
});

Deno.test("openGpu() says which GPUs there are when --gpu names none", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const words = ["--gpu", "no such gpu", "--out", "residuals"];
  const { code, stderr } = await runTask(["collect", ...words], { cwd });
  equal(code, 1);
  match(stderr, /^error: Cannot open GPU "no such gpu": .*there is 0 ".*"\n$/m);
  equal([...Deno.readDirSync(cwd)].length, 0);
});

Deno.test("openGpu() says what to install when there is no adapter", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  // Neither a driver nor another backend.
  const env = {
    VK_DRIVER_FILES: join(cwd, "none.json"),
    VK_ICD_FILENAMES: join(cwd, "none.json"),
    DENO_WEBGPU_BACKEND: "vulkan",
  };
  const words = ["--out", "residuals"];
  const { code, stderr } = await runTask(["collect", ...words], { cwd, env });
  equal(code, 1);
  match(
    stderr,
    /^error: Cannot open a GPU: WebGPU found no adapter: install a Vulkan driver .*\n$/m,
  );
  equal([...Deno.readDirSync(cwd)].length, 0);
});
