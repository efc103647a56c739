/**
 * `steer` in a process of its own, on the embedded model and an SAE of random
 * directions: what the steered text says is not the claim here.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { directory } from "../../core/files.ts";
import { Safetensors } from "../../core/safetensors.ts";
import mhaJson from "../fixtures/olmo2-mha-f32/expected.json" with {
  type: "json",
};
import chats from "../fixtures/tiny-olmo2/expected.json" with { type: "json" };
import { MODEL } from "./made_sae.ts";
import { runTask, scratchFolder, startTask } from "./run_task.ts";
import { saeFolder, steer, steerJson } from "./steer_runs.ts";

const FIXTURE = join(import.meta.dirname!, "../fixtures/olmo2-mha-f32");

Deno.test("steer prints Hugging Face's greedy reply when nothing is steered", async () => {
  const [{ chat, greedy_text }] = [chats.cases[1]!];
  const [system, user] = chat.map(({ content }) => content);
  const run = await runTask(
    ["steer", user!, "--system", system!, "--greedy"],
  );
  assert.equal(run.stdout, `${greedy_text}\n`);
  assert.match(
    run.stderr,
    /^GPU: .+\nmemory: .+ = embedding 1\.57 MB \+ 8 blocks 7\.17 MB \+ /,
  );
  assert.equal(run.code, 0);
});

Deno.test("steer changes the reply by number and by label alike", async () => {
  using sae = await saeFolder();
  const args = ["Who are you?", "--sae", sae.path, "--max-tokens", "16"];
  const plain = await steer(...args);
  const byNumber = await steer(...args, "--steer", "7=2x");
  const absolute = await steer(...args, "--steer", "7=40");
  for (const run of [plain, byNumber, absolute]) {
    assert.equal(run.stderr, "");
    assert.equal(run.code, 0);
    assert.ok(run.stdout.length > 5);
  }
  assert.notEqual(byNumber.stdout, plain.stdout);
  assert.equal(absolute.stdout, byNumber.stdout, "feature_max is 20");
  const byLabel = await runTask([
    "steer",
    ...args,
    ...["--steer", "Ice Hockey=2x"],
  ]);
  assert.equal(byLabel.stdout, byNumber.stdout);
  assert.match(
    byLabel.stderr,
    /^steering: 7=2x \(ice hockey\) at resid_post\[3\]$/m,
  );
});

Deno.test("steer --compare prints the replies of two runs, one after the other when there is no terminal", async () => {
  using sae = await saeFolder();
  const args = [
    ...["Who are you?", "--sae", sae.path],
    ...["--seed", "3", "--max-tokens", "16"],
  ];
  const steering = ["--steer", "7=2x", "--steer", "12=1x:add"];
  const plain = await steer(...args);
  const steered = await steer(...args, ...steering);
  const both = await steer(...args, ...steering, "--compare");
  assert.equal(
    both.stdout,
    `unsteered:\n${plain.stdout}\n7=2x (ice hockey), 12=1x:add:\n${steered.stdout}`,
  );
  const { replies } = await steerJson(...args, ...steering, "--compare");
  assert.deepEqual(replies.map(({ steered }) => steered), [false, true]);
  assert.deepEqual(replies.map(({ text }) => `${text}\n`), [
    plain.stdout,
    steered.stdout,
  ]);
});

Deno.test("steer reproduces the steered reference of Hugging Face from ids when the model has no tokenizer", async () => {
  const file = await directory(FIXTURE).open("expected.safetensors");
  const expected = await Safetensors.open(file);
  const prompt = [...await expected.ints("greedy_prompt")];
  const clamps = Object.entries(mhaJson.clamps);
  for (const encode of ["relu", "linear"]) {
    const want = [...await expected.ints(`steered.${encode}.greedy_output`)];
    const report = await steerJson(
      ...["--model", FIXTURE, "--sae", FIXTURE, "--ids", prompt.join(" ")],
      ...["--layer", `${mhaJson.steering_layer}`, "--encode", encode],
      ...clamps.flatMap(([feature, c]) => ["--steer", `${feature}=${c}`]),
      ...["--greedy", "--max-tokens", `${want.length - prompt.length}`],
    );
    assert.deepEqual(report.prompt_ids, prompt);
    assert.deepEqual([...prompt, ...report.replies[0]!.ids], want);
    assert.equal(report.replies[0]!.text, null);
  }
});

Deno.test("steer says where an SAE of open-concept-steering acts", async () => {
  const run = await runTask([
    "steer",
    ...["--model", FIXTURE, "--sae", FIXTURE, "--layer", "1"],
    ...["--ids", "5,6 7", "--steer", "3=4", "--greedy", "--max-tokens", "3"],
  ]);
  assert.match(
    run.stderr,
    /^steering: 3=4 at resid_post\[1\], though trained on final_norm@1, as open-concept-steering did$/m,
  );
  assert.match(run.stdout, /^\d+ \d+ \d+ \n$/);
});

Deno.test("steer takes modes, positions and sampling from its flags", async () => {
  using sae = await saeFolder();
  const args = ["Who are you?", "--sae", sae.path, "--max-tokens", "12"];
  const replies = async (...more: string[]) =>
    (await steerJson(...args, ...more)).replies.map(({ ids }) => ids.join(" "));
  const [plain, added] = await replies("--steer", "7=2x:add", "--compare");
  assert.deepEqual(await replies("--steer", "7=2x", "--mode", "add"), [added]);
  const clamp = ["--steer", "7=2x", "--greedy"];
  const [greedy, clamped] = await replies(...clamp, "--compare");
  const [generated] = await replies(...clamp, "--positions", "generated");
  const [seeded] = await replies("--seed", "5");
  const all = [plain, added, greedy, clamped, generated, seeded];
  assert.equal(new Set(all).size, all.length, all.join("\n"));
  assert.equal(
    generated!.split(" ")[0],
    greedy!.split(" ")[0],
    "the prompt is not steered, and it chooses the first token",
  );
  assert.deepEqual(await replies("--temperature", "0"), [greedy]);
});

Deno.test("steer penalizes and biases tokens as its flags say, and reports them", async () => {
  const args = ["Who are you?", "--greedy", "--max-tokens", "12"];
  const plain = await steerJson(...args);
  const first = plain.replies[0]!.ids[0]!;
  const { sampling, replies: [biased] } = await steerJson(
    ...[...args, "--logit-bias", `${first}=-inf`, "--logit-bias", "7=-2.5"],
    ...["--min-p", "0.1", "--repetition-penalty", "1.2"],
    ...["--presence-penalty", "-0.5", "--frequency-penalty", "40"],
  );
  assert.deepEqual(sampling, {
    temperature: 0,
    top_p: 0.9,
    top_k: 0,
    min_p: 0.1,
    repetition_penalty: 1.2,
    presence_penalty: -0.5,
    frequency_penalty: 40,
    logit_bias: { [first]: "-inf", 7: -2.5 },
    seed: 0,
  });
  assert.ok(!biased!.ids.includes(first), `${biased!.ids}`);
  assert.equal(new Set(biased!.ids).size, biased!.ids.length);
  const twice = ["--logit-bias", "7=1", "--logit-bias", "7=2"];
  const { code, stderr } = await steer(...args, ...twice);
  assert.equal(code, 1);
  assert.match(stderr, /^error: Cannot read --logit-bias "7=2": .* twice$/m);
});

Deno.test("steer --raw goes on with the prompt after the start token", async () => {
  const plain = await steerJson("Once upon", "--raw", "--max-tokens", "4");
  const [start, ...rest] = plain.prompt_ids;
  assert.equal(start, 0);
  assert.ok(rest.length > 0 && !rest.includes(0));
  const written = await steerJson(
    ...["<|endoftext|>Once upon", "--raw", "--max-tokens", "4"],
  );
  assert.deepEqual(written, plain);
});

Deno.test("steer refuses what it cannot do, in one line, before it opens a GPU", async () => {
  using sae = await saeFolder();
  using narrow = await saeFolder({ d_model: 96 });
  using deep = await saeFolder({ metadata: { hookPoint: "resid_post[8]" } });
  using foreign = await saeFolder({ metadata: { modelFingerprint: "abc" } });
  using unmeasured = await saeFolder({ isMeasured: false });
  using empty = scratchFolder();
  const on = ({ path }: { path: string }, ...args: string[]) => [
    ...["hello", "--sae", path],
    ...args,
  ];
  const cases: [string[], RegExp][] = [
    [[], /expected a prompt or --ids: got neither$/],
    [["  "], /expected a prompt: got an empty text$/],
    [["hello", "--ids", "1"], /expected a prompt or --ids: got both$/],
    [["--ids", "1 4096"], /--ids: expected .* from 0 to 4095: got "4096"$/],
    [["--ids", "1 -2"], /got "-2"$/],
    [["--ids", " "], /at least one token: got none$/],
    [["hello", "--compare"], /expected --steer: got none$/],
    [["hello", "--raw", "--system", "x"], /got it with --raw$/],
    [["hello ".repeat(600)], /a prompt of \d+ tokens: .* context of 512: /],
    [["hello", "--max-tokens", "512"], /context of model .* is 512 tokens: /],
    [["hello", "--top-p", "2"], /expected --top-p to be 0 to 1: got 2$/],
    [["hello", "--mode", "push"], /expected --mode to be clamp or add or /],
    [["hello", "--model", empty.path], /no such file in "/],
    [
      on(empty, "--steer", "1=1"),
      /expected sae_weights.safetensors, .*: got none/,
    ],
    [on(narrow), /expected d_model 192: got 96: /],
    [on(deep), /expected a layer from 0 to 7: got resid_post\[8\]: /],
    [on(foreign), /\(abc\): got [0-9a-f]{16}: give that model, or --any-model/],
    [
      on(sae, "--layer", "2"),
      /expected layer 2 as asked: got .*\[3\]: leave --layer out$/,
    ],
    [on(sae, "--steer", "64=1"), /feature 64: expected 0 to 63, /],
    [
      on(sae, "--steer", "7@8=1"),
      /after block 8: expected a layer from 0 to 7, /,
    ],
    [on(sae, "--steer", "7=1:decay=0"), /"7=1:decay=0": expected FEATURE=/],
    [
      on(sae, "--steer", "7=1", "--steer", "7@3=2"),
      /7 twice at once after block 3: /,
    ],
    [on(sae, "--steer", "7=NaN"), /"7=NaN": expected FEATURE=STRENGTH /],
    [on(sae, "--steer", "7=1", "--steer", "7=2"), /feature 7 twice at once /],
    [on(sae, "--steer", "ice hokey=1"), /did you mean "ice hockey"\?$/],
    [
      on(sae, "--steer", "twin=1"),
      /got features 8, 9: name one by its number$/,
    ],
    [on(unmeasured, "--steer", "7=1x"), /holds no feature_max: /],
  ];
  for (const [args, pattern] of cases) {
    const run = await runTask(["steer", ...args]);
    assert.match(run.stderr, /^error: Cannot [^\n]+\n$/);
    assert.match(run.stderr.trimEnd(), pattern);
    assert.equal(run.stdout, "");
    assert.equal(run.code, 1);
  }
  const other = await steer(...on(foreign, "--any-model", "--steer", "7=2x"));
  assert.equal(other.code, 0, other.stderr);
});

Deno.test("steer stops when it gets an interrupt", async () => {
  using sae = await saeFolder();
  const child = startTask([
    "steer",
    ...["hello", "--model", MODEL, "--sae", sae.path, "--quiet"],
    // Such that the reply does not end by itself.
    ...["--steer", "7=4x", "--max-tokens", "490", "--seed", "1"],
  ]);
  const reader = child.stdout.getReader();
  const first = await reader.read();
  assert.ok(first.value!.length > 0);
  child.kill("SIGINT");
  while (!(await reader.read()).done);
  const { code } = await child.status;
  assert.match(await new Response(child.stderr).text(), /stopped by Ctrl-C/);
  assert.equal(code, 130);
});

Deno.test("steer --watch tells what activations each token was chosen at, steered and not", async () => {
  const { replies } = await steerJson(
    "Tell me a story.",
    ...["--steer", "dragon=2x", "--compare", "--watch", "dragon"],
    ...["--watch", "12", "--greedy", "--max-tokens", "20"],
  );
  for (const { ids, activations } of replies) {
    assert.equal(activations!.length, ids.length);
    assert.ok(
      activations!.every((row) =>
        row.length === 2 && row.every((value) => value >= 0)
      ),
    );
  }
  const [plain, steered] = replies;
  assert.deepEqual(plain!.activations![0]!.length, 2);
  assert.notDeepEqual(plain!.activations, steered!.activations);
  const { stdout } = await steer(
    "Tell me a story.",
    ...["--watch", "dragon", "--greedy", "--max-tokens", "20"],
  );
  assert.match(stdout, /\nunsteered:\ntoken +dragon\n-+ +-+\n"/);
});

Deno.test("steer ends before --stop, and cuts long prompts with --truncate only", async () => {
  const flags = ["--greedy", "--max-tokens", "30"];
  const { stdout: whole } = await steer("What should I do today?", ...flags);
  const stop = whole.slice(8, 11);
  const { stdout: cut } = await steer(
    "What should I do today?",
    ...flags,
    ...["--stop", "never comes", "--stop", stop],
  );
  assert.equal(cut, `${whole.slice(0, whole.indexOf(stop))}\n`);
  const long = "Once there was a dragon. ".repeat(200);
  const refused = await steer(long, ...flags);
  assert.equal(refused.code, 1);
  assert.match(
    refused.stderr,
    /^error: Cannot reply to a prompt of \d+ tokens: .*--truncate\n$/,
  );
  for (const kind of [[], ["--raw"]]) {
    const { code, stderr, stdout } = await steer(
      long,
      ...flags,
      ...kind,
      "--truncate",
    );
    assert.equal(code, 0, stderr);
    assert.ok(stdout.trim().length > 0);
  }
});
