/** `--quantize`, `--context` and `--memory` where models are loaded. */
import { deepEqual, equal, match, notEqual, ok } from "node:assert/strict";
import { join } from "node:path";
import { runTask, scratchFolder } from "./run_task.ts";

const SAY = ["steer", "Who are you?", "--greedy", "--max-tokens", "8"] as const;

Deno.test("steer loads a model quantized, says what it holds, and replies", async () => {
  for (
    const [type, memory] of [
      ["q8", "embedding 852 kB \\+ 8 blocks 3\\.91 MB \\+ head 852 kB"],
      ["q4", "embedding 852 kB \\+ 8 blocks 2\\.14 MB \\+ head 852 kB"],
    ]
  ) {
    const run = await runTask([...SAY, "--quantize", type!]);
    equal(run.code, 0, run.stderr);
    match(run.stderr, new RegExp(`^memory: .+ = ${memory} \\+ `, "m"));
    ok(run.stdout.trim().length > 5);
  }
});

Deno.test("steer refuses what --memory does not hold, before it loads, with flags that do", async () => {
  const memory = ["--memory", "9MB"];
  const refused = await runTask([...SAY, ...memory]);
  equal(refused.code, 1);
  equal(refused.stdout, "");
  const [, flags] = /take (--quantize q8) \(\S+ MB\) or --quantize q4/
    .exec(refused.stderr) ?? [];
  match(
    refused.stderr,
    /^error: Cannot load the model: expected at most 9\.00 MB of memory, which this GPU shares with the host: got 10\.\d MB, the most of it 8 blocks with 7\.17 MB: take /m,
  );
  const taken = await runTask([...SAY, ...memory, ...flags!.split(" ")]);
  equal(taken.code, 0, taken.stderr);
});

Deno.test("steer and chat keep to --context", async () => {
  const run = await runTask([...SAY, "--context", "24"]);
  equal(run.code, 0, run.stderr);
  const short = await runTask(["steer", "Who are you?", "--context", "9"]);
  equal(short.code, 1);
  match(short.stderr, /^error: Cannot reply .*9 tokens?: shorten it/m);
  const chat = await runTask(["chat", "--context", "600"], { stdin: "hi\n" });
  equal(chat.code, 1);
  match(
    chat.stderr,
    /^error: Cannot take --context 600: the context of model ".+" is 512 tokens: shorten it$/m,
  );
});

Deno.test("collect marks the vectors of a quantized model, and goes on with no others", async () => {
  using folder = scratchFolder();
  const collect = (out: string, ...more: string[]) =>
    runTask([
      "collect",
      ...["--text=storybook:101:6", "--context=64", "--hook=resid_post[0]"],
      `--out=${join(folder.path, out)}`,
      ...more,
    ]);
  const plain = await collect("plain");
  const q8 = await collect("q8", "--quantize=q8");
  equal(plain.code, 0, plain.stderr);
  equal(q8.code, 0, q8.stderr);
  const manifest = (out: string) =>
    JSON.parse(
      Deno.readTextFileSync(join(folder.path, out, "manifest.json")),
    );
  const [ofPlain, ofQ8] = [manifest("plain"), manifest("q8")];
  equal(ofQ8.model.fingerprint, `${ofPlain.model.fingerprint}-q8`);
  notEqual(ofQ8.shards[0].sha256, ofPlain.shards[0].sha256);
  for (const other of [[], ["--quantize=q4"]]) {
    const run = await collect("q8", ...other);
    equal(run.code, 1);
    match(run.stderr, /^error: Cannot .*residuals/m);
  }
  deepEqual(manifest("q8"), ofQ8);
  // Shards of one are not taken for those of the other.
  Deno.writeTextFileSync(
    join(folder.path, "q8", "manifest.json"),
    JSON.stringify({ ...ofQ8, model: ofPlain.model }),
  );
  const mixed = await runTask([
    "train",
    ...[`--residuals=${join(folder.path, "q8")}`, "--d-sae=64"],
    ...["--steps=1", `--out=${join(folder.path, "sae")}`],
  ]);
  equal(mixed.code, 1);
  match(mixed.stderr, /expected model tiny-olmo2 \(\w+\) .*got .*-q8\)/);
});
