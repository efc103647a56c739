/**
 * `find` in a process of its own, on the embedded model and an SAE of random
 * directions: which feature is found is not the claim here.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { D_SAE, makeSae } from "./made_sae.ts";
import { runTask, scratchFolder, type TaskRun } from "./run_task.ts";

const LABELS = new Map([[7, { label: "ice hockey", source: "a test" }]]);
/** Few documents, so that an index is made in a moment. */
const QUICK = ["--text", "storybook:1:40", "--documents", "12"];

/** A scratch folder with an SAE in `sae`. */
async function saeFolder(
  options: Parameters<typeof makeSae>[1] = { labels: LABELS },
): Promise<{ path: string; sae: string } & Disposable> {
  const folder = scratchFolder();
  const sae = join(folder.path, "sae");
  await Deno.mkdir(sae);
  await makeSae(sae, options);
  return {
    path: folder.path,
    sae,
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

async function succeed(...args: string[]): Promise<TaskRun> {
  const run = await runTask(["find", ...args]);
  assert.equal(run.code, 0, run.stderr);
  return run;
}

/** A match of `--json`. */
interface Match {
  readonly feature: number;
  readonly label: string | null;
  readonly score: number;
  readonly recall: number;
  readonly false_rate: number;
  readonly auroc: number;
  readonly density: number;
  readonly contexts: readonly { text: string; acts: readonly number[] }[];
}

Deno.test("find ranks features by words and examples, with the reasons and contexts", async () => {
  using folder = await saeFolder();
  const args = ["dog", "puppy", "--example", "A wet nose.", ...QUICK];
  const json = await succeed(...args, "--sae", folder.sae, "--json", "--quiet");
  assert.equal(json.stderr, "");
  const { query, matches } = JSON.parse(json.stdout);
  assert.deepEqual(query.words, ["dog", "puppy"]);
  assert.deepEqual(query.examples, ["A wet nose."]);
  assert.ok(query.found.dog > 0);
  assert.equal(matches.length, 5);
  const scores = matches.map(({ score }: Match) => score);
  assert.deepEqual(scores, scores.toSorted((a: number, b: number) => b - a));
  for (const match of matches as Match[]) {
    for (const name of ["score", "recall", "false_rate", "auroc", "density"]) {
      const value = match[name as "score"];
      assert.ok(value >= 0 && value <= 1, `${name}: ${value}`);
    }
    assert.equal(match.contexts.length, 3);
    assert.ok(match.contexts.every(({ text }) => /«.+»/.test(text)));
  }
  const people = await succeed(...args, "--sae", folder.sae, "--limit", "2");
  assert.match(people.stderr, /^GPU: .+\nmemory: .+ = model 5\.19 MB \+ SAE /);
  assert.match(people.stdout, /^\d+ examples \(\d+ sentences with "dog", /);
  const [first] = matches;
  const row = new RegExp(`\\n +${first.feature} .*${first.score.toFixed(3)} `);
  assert.match(people.stdout, row);
  assert.match(
    people.stdout,
    new RegExp(`\nfeature ${first.feature}.*: fires `),
  );
  assert.equal(people.stdout.match(/^feature \d/gm)!.length, 2);
});

Deno.test("find keeps an index, and shows a feature from it without a GPU", async () => {
  using folder = await saeFolder();
  const out = join(folder.path, "index");
  const make = [...QUICK, "--sae", folder.sae, "--out", out, "--limit", "3"];
  const made = await succeed(...make);
  assert.match(
    made.stdout,
    /^[\d,]+ tokens of 12 documents of storybook:1:40: 64 features, \d+ that never fire, L0 \d+\.\d\d\n/,
  );
  assert.equal(made.stdout.match(/^feature \d+/gm)!.length, 3);
  const manifest = JSON.parse(
    await Deno.readTextFile(join(out, "manifest.json")),
  );
  assert.equal(manifest.kind, "features");
  assert.equal(manifest.nDocuments, 12);
  const feature = /^feature (\d+)/m.exec(made.stdout)![1]!;
  const show = ["--feature", feature, "--sae", folder.sae, "--index", out];
  const shown = await succeed(...show);
  assert.equal(shown.stderr, "");
  const [line] = shown.stdout.split("\n");
  assert.ok(made.stdout.includes(line!), line);
  const json = JSON.parse((await succeed(...show, "--json")).stdout);
  assert.equal(json.feature, Number(feature));
  assert.equal(json.contexts.length, 10);
  assert.equal(json.contexts[0].activation, Math.fround(json.max));
  assert.equal(json.label, feature === "7" ? "ice hockey" : null);

  await Deno.copyFile(
    join(out, "features.jsonl"),
    join(folder.sae, "features.jsonl"),
  );
  const beside = await succeed("--feature", feature, "--sae", folder.sae);
  assert.deepEqual(beside, shown);
  const byLabel = await succeed("--label", "Hockey", "--sae", folder.sae);
  assert.equal(byLabel.stderr, "");
  assert.match(
    byLabel.stdout,
    /^feature +label +source\n-.+\n +7 +ice hockey +a test\n\nfeature 7 \(ice hockey\): /,
  );
  assert.equal((await succeed(...make)).stdout, made.stdout, "again");
  const other = await runTask(["find", ...make, "--documents", "5"]);
  assert.match(other.stderr, /another configuration: choose another folder/);
  assert.equal(other.code, 1);
});

Deno.test("find shows a feature of an SAE without an index", async () => {
  using folder = await saeFolder();
  const args = ["--feature", "7", "--sae", folder.sae, ...QUICK];
  const run = await succeed(...args);
  assert.match(run.stdout, /^feature 7 \(ice hockey\): (fires on|never fires)/);
});

Deno.test("find refuses bad input in one line and writes nothing", async () => {
  using folder = await saeFolder();
  using foreign = await saeFolder({ metadata: { modelFingerprint: "abc" } });
  using deep = await saeFolder({ metadata: { hookPoint: "resid_post[8]" } });
  using narrow = await saeFolder({ d_model: 96 });
  const out = join(folder.path, "out");
  await Deno.writeTextFile(join(folder.path, "empty.txt"), "\n");
  await Deno.mkdir(join(folder.path, "other"));
  await Deno.writeTextFile(join(folder.path, "other", "features.jsonl"), "{}");
  const on = ({ sae }: { sae: string }, ...args: string[]): string[] => [
    ...args,
    "--sae",
    sae,
  ];
  const cases: [string[], RegExp][] = [
    [
      on(folder),
      /expected words or --example, or --feature, or --label, or --out: got none/,
    ],
    [on(folder, "dog", "--feature", "1"), /or --out: got several$/],
    [
      on(folder, ""),
      /expected words and examples with text: got an empty one$/,
    ],
    [on(folder, "--example", " "), /got an empty one$/],
    [on(folder, "--against", "x"), /expected a word or an example /],
    [
      on(folder, "--feature", `${D_SAE}`),
      /expected a feature from 0 to 63, as /,
    ],
    [on(folder, "--feature", "-1"), /expected --feature to be a whole number/],
    [on(folder, "--feature", "1.5"), /expected --feature to be a whole number/],
    [on(narrow, "dog"), /expected d_model 192: got 96: /],
    [on(deep, "dog"), /expected a layer from 0 to 7: got resid_post\[8\]: /],
    [on(foreign, "dog"), /\(abc\): got [0-9a-f]{16}: .*--any-model/],
    [on(folder, "--out", out, "--text", "storybook:1"), /expected an end: got/],
    [on(folder, "--out", out, "--text", "storybook:x"), /storybook:SEED:N/],
    [
      on(folder, "--out", out, "--text", join(folder.path, "empty.txt")),
      /empty\.txt": expected text: got none/,
    ],
    [
      on(folder, "--out", out, "--text", "no.txt"),
      /Cannot open "no\.txt": no such file in "/,
    ],
    [
      on(folder, "--feature", "1", "--index", join(folder.path, "other")),
      /features\.jsonl" line 1: field "formatVersion": /,
    ],
    [on(folder, "--feature", "1", "--index", folder.sae), /features\.jsonl/],
    [on(folder, "dog", "--limt", "1"), /did you mean --limit\?$/],
    [
      ["dog", "--sae", folder.path],
      /expected sae_weights\.safetensors, .*: got none/,
    ],
  ];
  for (const [args, pattern] of cases) {
    const run = await runTask(["find", ...args]);
    assert.match(run.stderr, /^error: Cannot [^\n]+\n$/, args.join(" "));
    assert.match(run.stderr.trimEnd(), pattern);
    assert.equal(run.stdout, "");
    assert.equal(run.code, 1);
  }
  await assert.rejects(() => Deno.stat(out), Deno.errors.NotFound);
  const tuned = on(foreign, "dog", "--any-model", ...QUICK, "--quiet");
  const other = await succeed(...tuned);
  assert.match(other.stdout, /sentences with "dog"/);
});
