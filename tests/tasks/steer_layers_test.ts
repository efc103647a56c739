/** `steer` with schedules, several SAEs and one SAE at several layers. */
import assert from "node:assert/strict";
import { runTask } from "./run_task.ts";
import { saeFolder, steer, steerJson } from "./steer_runs.ts";

Deno.test("steer follows a schedule: after 1 is what --positions generated does", async () => {
  using sae = await saeFolder();
  const args = [
    ...["Who are you?", "--sae", sae.path],
    ...["--greedy", "--max-tokens", "12"],
  ];
  const ids = async (...more: string[]) =>
    (await steerJson(...args, ...more)).replies[0]!.ids;
  const plain = await ids();
  const generated = await ids("--steer", "7=4x", "--positions", "generated");
  assert.deepEqual(await ids("--steer", "7=4x:after=1"), generated);
  const late = await ids("--steer", "7=4x:after=6");
  assert.deepEqual(late.slice(0, 6), plain.slice(0, 6));
  assert.notDeepEqual(late, plain);
  const fading = await ids("--steer", "7=4x:decay=1:after=6");
  assert.deepEqual(fading.slice(0, 6), plain.slice(0, 6));
  assert.notDeepEqual(fading, late);
  assert.deepEqual(await ids("--steer", "7=4x:after=12"), plain);
});

Deno.test("steer takes several SAEs, each at its own layer, and one SAE at others", async () => {
  // The same directions at two layers; 9 is named in one SAE only.
  using middle = await saeFolder();
  using deep = await saeFolder({
    metadata: { hookPoint: "resid_post[5]" },
    labels: new Map([
      [7, { label: "ice hockey", source: "a test" }],
      [9, { label: "chess", source: "a test" }],
    ]),
  });
  const args = ["Who are you?", "--greedy", "--max-tokens", "12"];
  const both = ["--sae", middle.path, "--sae", deep.path];
  const report = (...more: string[]) => steerJson(...args, ...more);
  const ids = async (...more: string[]) =>
    (await report(...more)).replies[0]!.ids;
  const [here, there] = [
    await ids("--sae", middle.path, "--steer", "7=4x"),
    await ids("--sae", deep.path, "--steer", "7=4x"),
  ];
  assert.notDeepEqual(here, there);
  assert.deepEqual(await ids(...both, "--steer", "7@3=4x"), here);
  assert.deepEqual(await ids(...both, "--steer", "7@5=4x"), there);
  assert.deepEqual(await ids("--sae", middle.path, "--steer", "7@5=4x"), there);
  const steering = ["--steer", "ice hockey@5=4x", "--steer", "chess=2x"];
  const two = await report(...both, ...steering, "--steer", "12@3=1x");
  assert.notDeepEqual(two.replies[0]!.ids, there);
  assert.deepEqual(two.saes.map(({ hook_point }) => hook_point), [
    "resid_post[3]",
    "resid_post[5]",
  ]);
  assert.deepEqual(
    two.steering.map(({ feature, layer, label }) => [feature, layer, label]),
    [[7, 5, "ice hockey"], [9, 5, "chess"], [12, 3, null]],
  );
  const run = await runTask(
    ["steer", ...args, ...both, ...steering, "--steer", "12@3=1x"],
  );
  assert.match(
    run.stderr,
    /^steering: 7@5=4x \(ice hockey\), 9@5=2x \(chess\), 12@3=1x at resid_post\[3\] and resid_post\[5\]$/m,
  );
  const moved = await runTask(
    ["steer", ...args, "--sae", middle.path, "--steer", "7@1=1x"],
  );
  assert.match(
    moved.stderr,
    /^steering: 7@1=1x \(ice hockey\) at resid_post\[1\], though trained on resid_post\[3\]$/m,
  );
  const refused: [string, RegExp][] = [
    ["7=1", /@3 \(".*"\) or @5 \(".*"\): got none$/],
    ["7@4=1", /@3 \(".*"\) or @5 \(".*"\): got another$/],
    [
      "Ice Hockey=1",
      /expected Ice Hockey@3 or Ice Hockey@5: got that label in several SAEs$/,
    ],
    ["golf=1", /expected golf@3 or golf@5: got no SAE that has it$/],
    ["chess@4=1", /expected chess@3 or chess@5: got @4$/],
    ["chess@3=1", /feature labelled "chess": expected one: got none: /],
  ];
  for (const [text, pattern] of refused) {
    const run = await steer(...args, ...both, "--steer", text);
    assert.match(run.stderr, /^error: Cannot [^\n]+\n$/);
    assert.match(run.stderr.trimEnd(), pattern);
  }
  const same = await steer(...args, ...both, "--sae", middle.path);
  assert.match(
    same.stderr,
    /expected SAEs of different layers: got layer 3 of both\n$/,
  );
});
