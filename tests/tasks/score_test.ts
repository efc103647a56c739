import assert from "node:assert/strict";
import { join } from "node:path";
import { hugeSaeFiles } from "../steer/fixture_models.ts";
import { runTask, scratchFolder } from "./run_task.ts";

const score = (...args: string[]) => runTask(["score", "--quiet", ...args]);

interface Report {
  readonly scores: readonly {
    what: string;
    nats_per_token: number;
    perplexity: number;
  }[];
  readonly documents: readonly {
    ids: readonly number[];
    tokens: readonly string[];
    logprobs: readonly (readonly number[])[];
  }[];
}

Deno.test("score prints log-probabilities of the model, steered, and with the SAE spliced in", async () => {
  const text = "There was a dragon. The dragon sat on its gold.";
  const { code, stdout, stderr } = await score(
    text,
    ...["--steer", "dragon=1.5x", "--splice", "--json"],
  );
  assert.equal(code, 0, stderr);
  const { scores, documents: [document] }: Report = JSON.parse(stdout);
  assert.deepEqual(scores.map(({ what }) => what), [
    "model",
    "steered: 217=1.5x (dragon)",
    "SAE spliced in at resid_post[3]",
  ]);
  assert.equal(document!.tokens.slice(1).join(""), text);
  for (const [i, { nats_per_token, perplexity }] of scores.entries()) {
    const logprobs = document!.logprobs[i]!;
    assert.equal(logprobs.length, document!.ids.length - 1);
    assert.ok(logprobs.every((value) => value <= 0));
    const mean = -logprobs.reduce((sum, x) => sum + x, 0) / logprobs.length;
    assert.ok(Math.abs(mean - nats_per_token) < 1e-9);
    assert.ok(Math.abs(Math.exp(mean) - perplexity) < 1e-6 * perplexity);
  }
  const at = document!.tokens.indexOf(" dragon") - 1;
  const [plain, steered] = document!.logprobs;
  assert.ok(steered![at]! > plain![at]!, "a steered model expects the dragon");
});

Deno.test("score leaves the first tokens alone when steering comes after them", async () => {
  const text = "There was a dragon. The dragon sat on its gold.";
  const { stdout, stderr } = await score(
    text,
    ...["--steer", "dragon=1.5x:after=6", "--json"],
  );
  const { documents: [document] }: Report = JSON.parse(stdout || stderr);
  const [plain, steered] = document!.logprobs;
  // Token i + 1 is predicted at token i, which is the reply's i-th.
  assert.deepEqual(steered!.slice(0, 6), plain!.slice(0, 6));
  assert.notEqual(steered![6], plain![6]);
});

Deno.test("score reads a text in windows, and prints a table", async () => {
  const { code, stdout, stderr } = await score(
    ...["--text", "storybook:7:3", "--window", "32", "--stride", "8"],
  );
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^\d+ tokens of 3 documents\n/);
  assert.match(stdout, /^model +\d\.\d{4} +\d+\.\d{3}$/m);
});

Deno.test("score refuses what it cannot score, in one line", async () => {
  const cases: [string[], RegExp][] = [
    [[], /expected a sentence or --text: got neither/],
    [["a", "--text", "storybook:7:3"], /got both/],
    [["a", "--window", "9999"], /Cannot score with --window 9999: expected at/],
    [
      ["a", "--window", "16", "--stride", "16"],
      /expected less than the window/,
    ],
    [["a", "--steer", "99999=1"], /Cannot steer feature 99999/],
  ];
  for (const [args, pattern] of cases) {
    const { code, stderr } = await score(...args);
    assert.equal(code, 1, `${args}`);
    assert.match(stderr, pattern);
    assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
  }
});

Deno.test("score says so in one line when steering makes the logits infinite", async () => {
  using folder = scratchFolder();
  for (const [name, bytes] of Object.entries(await hugeSaeFiles(192))) {
    Deno.writeFileSync(join(folder.path, name), bytes);
  }
  const { code, stdout, stderr } = await score(
    "The dragon sat on its gold.",
    ...["--sae", folder.path, "--layer", "1", "--steer", "0=1e10:add"],
  );
  assert.equal(code, 1);
  assert.equal(stdout, "");
  assert.match(
    stderr,
    /^error: Cannot score: expected finite log-probabilities: got others \(steered: 0=10000000000:add\): steer less strongly\n$/,
  );
});
