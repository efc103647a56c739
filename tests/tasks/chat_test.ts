/** `chat` in a process of its own, with what a person would type piped in. */
import assert from "node:assert/strict";
import { makeSae } from "./made_sae.ts";
import { runTask, scratchFolder, startTask, type TaskRun } from "./run_task.ts";

const LABELS = new Map([[7, { label: "ice hockey", source: "a test" }]]);

/** Types lines into a chat. */
function chat(lines: readonly string[], ...args: string[]): Promise<TaskRun> {
  return runTask(["chat", "--quiet", ...args], {
    stdin: lines.map((line) => `${line}\n`).join(""),
  });
}

/** Lines of output. */
const lines = ({ stdout }: TaskRun): string[] => stdout.trimEnd().split("\n");

Deno.test("chat replies to each line, and remembers what was said until /reset", async () => {
  const question = "Tell me about baseball.";
  const run = await chat(
    [question, "", "And then?", "/reset", "And then?", question],
    "--greedy",
  );
  assert.equal(run.stderr, "");
  assert.equal(run.code, 0);
  const [first, second, reset, forgotten, last] = lines(run);
  assert.equal(reset, "the conversation is forgotten");
  assert.notEqual(second, forgotten, "the reply depends on the turn before");
  assert.ok(first && second && forgotten && last);
  const alone = await chat(["And then?"], "--greedy");
  assert.deepEqual(lines(alone), [forgotten]);
});

Deno.test("chat steers from /steer on until /clear", async () => {
  using sae = scratchFolder();
  await makeSae(sae.path, { labels: LABELS });
  const question = "Who are you?";
  const run = await chat(
    [
      ...[question, "/reset", "/steer", "/steer 7=1x", "/steer ice hockey=2x"],
      ...["/steer 9=1:add", question, "/reset", "/clear", question],
    ],
    ...["--sae", sae.path, "--greedy", "--max-tokens", "40"],
  );
  assert.equal(run.stderr, "");
  const [plain, , none, one, replaced, two, steered, , cleared, again] = lines(
    run,
  );
  assert.equal(none, "not steered");
  assert.equal(one, "steered by 7=1x (ice hockey) at resid_post[3]");
  assert.equal(replaced, "steered by 7=2x (ice hockey) at resid_post[3]");
  assert.equal(two, "steered by 7=2x (ice hockey), 9=1:add at resid_post[3]");
  assert.notEqual(steered, plain);
  assert.equal(cleared, "not steered");
  assert.equal(again, plain);
  assert.equal(run.code, 0);
});

Deno.test("chat steers after several blocks, and replaces what is steered at one of them", async () => {
  using sae = scratchFolder();
  await makeSae(sae.path, { labels: LABELS });
  const question = "Who are you?";
  const run = await chat(
    [
      ...["/steer 7=4x", question, "/reset", "/steer ice hockey@5=2x:after=2"],
      ...[question, "/reset", "/steer 7@3=1x:add", "/steer 7@5=ablate"],
      ...["/clear", "/steer 7=4x", question],
    ],
    ...["--sae", sae.path, "--greedy", "--max-tokens", "20"],
  );
  assert.equal(run.stderr, "");
  const [one, first, , two, second, , replaced, last, , again, third] = lines(
    run,
  );
  const moved = "resid_post[5], though trained on resid_post[3]";
  assert.equal(one, "steered by 7=4x (ice hockey) at resid_post[3]");
  assert.equal(
    two,
    `steered by 7=4x (ice hockey), 7@5=2x:after=2 (ice hockey) at resid_post[3] and ${moved}`,
  );
  assert.notEqual(second, first);
  assert.equal(
    replaced,
    `steered by 7@5=2x:after=2 (ice hockey), 7@3=1x:add (ice hockey) at resid_post[3] and ${moved}`,
  );
  assert.equal(
    last,
    `steered by 7@3=1x:add (ice hockey), 7@5=ablate (ice hockey) at resid_post[3] and ${moved}`,
  );
  assert.equal(again, one);
  assert.equal(third, first, "sets that came and went left nothing behind");
});

Deno.test("chat finds and steers features of several SAEs, each at its own layer", async () => {
  using middle = scratchFolder();
  using deep = scratchFolder();
  await makeSae(middle.path, { labels: LABELS });
  await makeSae(deep.path, { metadata: { hookPoint: "resid_post[5]" } });
  const run = await chat(
    ["/find baseball", "/steer 3@5=2x", "/steer 3=2x", "/steer ice hockey=1"],
    ...["--sae", middle.path, "--sae", deep.path],
  );
  const found = lines(run);
  const headings = found.filter((line) => line.startsWith("resid_post["));
  assert.deepEqual(headings, ["resid_post[3]:", "resid_post[5]:"]);
  assert.deepEqual(found.slice(-2), [
    "steered by 3@5=2x at resid_post[5]",
    "steered by 3@5=2x, 7@3=1 (ice hockey) at resid_post[3] and resid_post[5]",
  ]);
  assert.match(
    run.stderr,
    /^error: Cannot steer feature 3: expected one of the SAEs' layers behind it, @3 \(".*"\) or @5 \(".*"\): got none\n$/,
  );
});

Deno.test("chat starts steered when --steer is given", async () => {
  using sae = scratchFolder();
  await makeSae(sae.path, { labels: LABELS });
  const flags = ["--sae", sae.path, "--steer", "7=2x", "--steer", "8=ablate"];
  const run = await chat(["/steer"], ...flags);
  assert.deepEqual(lines(run), [
    "steered by 7=2x (ice hockey), 8=ablate at resid_post[3]",
  ]);
});

Deno.test("chat goes on after a line that it cannot take", async () => {
  using sae = scratchFolder();
  await makeSae(sae.path, { labels: LABELS });
  const run = await chat(
    [
      ...["/ster", "/", "/steer 64=1", "/steer x", "/steer 7=1x"],
      ...["/steer 7=NaN", "/steer", "long ".repeat(500), "hello", "/help"],
      ...["/quit", "/steer 8=1"],
    ],
    ...["--sae", sae.path, "--max-tokens", "10"],
  );
  const errors = run.stderr.trimEnd().split("\n");
  const patterns = [
    /^error: Cannot run \/ster: expected a command: did you mean \/steer\?/,
    /^error: Cannot run \/: expected a command: /,
    /^error: Cannot steer feature 64: expected 0 to 63, /,
    /^error: Cannot read steering "x": /,
    /^error: Cannot read steering "7=NaN": /,
    /^error: Cannot reply to a message of \d+ tokens: expected at most 502, /,
  ];
  assert.equal(errors.length, patterns.length, run.stderr);
  patterns.forEach((pattern, i) => assert.match(errors[i]!, pattern));
  const [steered, listed, reply, ...help] = lines(run);
  assert.equal(steered, "steered by 7=1x (ice hockey) at resid_post[3]");
  assert.equal(listed, steered, "a refused line changes nothing");
  assert.ok(reply!.length > 0);
  for (const name of ["steer", "clear", "find", "reset", "help", "quit"]) {
    assert.ok(help.some((line) => line.startsWith(`/${name}`)), name);
  }
  assert.equal(run.code, 0);
});

Deno.test("chat drops the oldest turns with a notice when the context is full", async () => {
  const message = "Tell me more about the long road. ".repeat(14);
  const run = await chat(
    [message, message, message, message, message],
    ...["--greedy", "--max-tokens", "20"],
  );
  assert.match(
    run.stderr,
    /^the \d+ oldest messages no longer fit the model's context of 512 tokens and are forgotten\n/,
  );
  assert.ok(lines(run).length >= 5, "a reply to each");
  assert.equal(run.code, 0);
});

Deno.test("chat lists features that fire on a word when asked by /find", async () => {
  using sae = scratchFolder();
  await makeSae(sae.path, { labels: LABELS });
  const run = await chat(["/find baseball", "/find"], "--sae", sae.path);
  const [heading, , ...rows] = lines(run);
  assert.match(heading!, /^feature +label +score +recall +false alarms$/);
  assert.equal(rows.length, 5);
  const scores = rows.map((row) => Number(/ (0\.\d\d) /.exec(row)![1]));
  assert.deepEqual(scores, scores.toSorted((a, b) => b - a));
  assert.match(run.stderr, /^error: Cannot search: [^\n]+\n$/);
  assert.equal(run.code, 0);
});

Deno.test("chat refuses flags that do not fit before it opens a GPU", async () => {
  const cases: [string[], RegExp][] = [
    [
      ["--max-tokens", "512"],
      /--max-tokens 512: the context of model .* is 512 tokens: shorten it$/,
    ],
    [["--sae", "/no/such/folder"], /"\/no\/such\/folder"/],
    [["--top-k", "-1"], /expected --top-k/],
  ];
  for (const [args, pattern] of cases) {
    const run = await runTask(["chat", ...args], { stdin: "hello\n" });
    assert.match(run.stderr, /^error: Cannot [^\n]+\n$/);
    assert.match(run.stderr.trimEnd(), pattern);
    assert.equal(run.stdout, "");
    assert.equal(run.code, 1);
  }
});

Deno.test("chat stops a reply at the first interrupt and ends at a second one", async () => {
  using sae = scratchFolder();
  await makeSae(sae.path);
  const child = startTask([
    "chat",
    ...["--quiet", "--sae", sae.path, "--steer", "7=4x"],
    ...["--max-tokens", "450"],
  ], { stdin: "" });
  const decoder = new TextDecoder();
  const stdout = child.stdout.getReader();
  const writer = child.stdin.getWriter();
  const type = (text: string) => writer.write(new TextEncoder().encode(text));
  const readUntil = async (end: (text: string) => boolean): Promise<string> => {
    let text = "";
    while (!end(text)) text += decoder.decode((await stdout.read()).value!);
    return text;
  };
  await type("hello\n");
  await readUntil((text) => text.length > 0);
  child.kill("SIGINT");
  await readUntil((text) => text.endsWith("\n"));
  await type("/steer\n");
  const answer = await readUntil((text) => text.endsWith("\n"));
  assert.equal(answer, "steered by 7=4x at resid_post[3]\n");
  await type("hello again\n");
  await readUntil((text) => text.length > 0);
  child.kill("SIGINT");
  await readUntil((text) => text.endsWith("\n"));
  child.kill("SIGINT");
  const { code } = await child.status;
  assert.equal(code, 130);
  assert.equal(await new Response(child.stderr).text(), "stopped\nstopped\n");
  await writer.abort().catch(() => {});
  await stdout.cancel();
});
