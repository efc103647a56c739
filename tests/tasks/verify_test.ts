import { deepEqual, equal, match, ok } from "node:assert/strict";
import { join } from "node:path";
import { directory, writeAtomic } from "../../core/files.ts";
import { Safetensors, safetensorsChunks } from "../../core/safetensors.ts";
import { runTask, scratchFolder } from "./run_task.ts";

const FIXTURES = join(import.meta.dirname!, "../fixtures");
const MODEL = join(FIXTURES, "olmo2-mha-f32");

interface Part {
  readonly title: string;
  readonly checks: readonly {
    name: string;
    error: number;
    limit: number;
    ok: boolean;
  }[];
}

Deno.test("verify finds everything right on this GPU", async () => {
  const run = await runTask(["verify", "--json"]);
  equal(run.code, 0, run.stdout);
  const { ok: isRight, parts } = JSON.parse(run.stdout);
  equal(isRight, true);
  const titles = (parts as Part[]).map(({ title }) => title.split(/[ :]/)[0]);
  deepEqual(titles, [
    "olmo2-mha-f32",
    "olmo2-gqa-bf16-sharded",
    "tiny-olmo2",
    "sampling",
    "sae-l1",
  ]);
  for (const { title, checks } of parts as Part[]) {
    ok(checks.length >= 4, title);
    for (const { name, error, limit, ok: isOk } of checks) {
      ok(isOk && error >= 0 && error <= limit, `${title}: ${name}`);
    }
  }
});

/** A copy of the model's expected file in which the first value of a tensor is 0.1 more. */
async function changedExpected(to: string, tensor: string): Promise<void> {
  const file = await directory(MODEL).open("expected.safetensors");
  const expected = await Safetensors.open(file);
  const infos = [...expected.tensors.values()];
  const tensors = await Promise.all(infos.map(async ({ name, ...info }) => {
    const bytes = await expected.bytes(name);
    if (name === tensor) new Float32Array(bytes.buffer)[0]! += 0.1;
    return { name, ...info, bytes };
  }));
  await writeAtomic(to, safetensorsChunks(tensors));
}

Deno.test("verify exits with 1 and names the check when a value is off", async () => {
  using folder = scratchFolder();
  const expected = join(folder.path, "changed.safetensors");
  await changedExpected(expected, "resid_post.1");
  const words = ["--model", MODEL, "--expected", expected];
  const run = await runTask(["verify", ...words]);
  equal(run.code, 1);
  const failed = run.stdout.split("\n").filter((line) =>
    line.endsWith("FAILED")
  );
  match(
    failed.join("\n"),
    /^resid_post\.1 +\d\.\de-\d +1e-5 +FAILED\n.*: 1 of /,
  );
});

Deno.test("verify compares a model with its expected file and the settings beside it", async () => {
  const expected = join(MODEL, "expected.safetensors");
  const words = ["--model", MODEL, "--expected", expected];
  const run = await runTask(["verify", ...words]);
  equal(run.code, 0, run.stdout);
  match(run.stdout, /^steered\.linear\.greedy_output.* ok$/m);
  match(run.stdout, /: all \d+ checks ok\n$/);
});

Deno.test("verify --train replays training steps, and exits with 1 when one is off", async () => {
  using folder = scratchFolder();
  const steps = join(FIXTURES, "sae-l1");
  const right = await runTask(["verify", "--train", steps]);
  equal(right.code, 0, right.stdout);
  match(right.stdout, /^loss\.0 .* ok$/m);
  Deno.copyFileSync(
    join(steps, "steps.safetensors"),
    join(folder.path, "steps.safetensors"),
  );
  const settings = JSON.parse(
    Deno.readTextFileSync(join(steps, "steps.json")),
  );
  settings.steps[3].loss *= 1.001;
  Deno.writeTextFileSync(
    join(folder.path, "steps.json"),
    JSON.stringify(settings),
  );
  const run = await runTask(["verify", "--train", folder.path]);
  equal(run.code, 1);
  match(run.stdout, /^loss\.3 .* FAILED$/m);
  match(run.stdout, /: 1 of \d+ checks FAILED\n$/);
});

Deno.test("verify refuses bad input in one line", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  Deno.copyFileSync(
    join(FIXTURES, "hostile-safetensors/shape-overflow.safetensors"),
    join(cwd, "hostile.safetensors"),
  );
  const other = join(FIXTURES, "olmo2-gqa-bf16-sharded/expected.safetensors");
  const model = ["--model", MODEL];
  const cases: [string[], RegExp][] = [
    [model, /expected both --model and --expected: got one of them/],
    [["--expected", other], /expected both --model and --expected/],
    [[...model, "--expected", "none.safetensors"], /no such file in/],
    [[...model, "--expected", other], /give the model that it was computed/],
    [
      [...model, "--expected", "hostile.safetensors"],
      /hostile\.safetensors": tensor "a": .*: fetch it again/,
    ],
    [["--train", "none"], /open folder ".*none"/],
    [["--train", MODEL], /open "steps\.json"/],
  ];
  for (const [words, message] of cases) {
    const run = await runTask(["verify", ...words, "--quiet"], { cwd });
    equal(run.code, 1, words.join(" "));
    equal(run.stdout, "");
    match(run.stderr, new RegExp(`^error: Cannot .*${message.source}.*\n$`));
  }
});
