import assert from "node:assert/strict";
import { join } from "node:path";
import {
  countTests,
  dealt,
  driverManifests,
  splitArguments,
} from "../../tasks/test.ts";

const TASK = join(import.meta.dirname!, "../../tasks/test.ts");
const SCRATCH = join(import.meta.dirname!, "../../.deno");

/** What `deno test --junit-path` wrote for two files, shortened. */
const JUNIT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deno test" tests="8" failures="3" errors="0" time="0.143">
  <testsuite name="./x_test.ts" tests="7" disabled="1" errors="0" failures="3">
    <testcase name="f() &quot;q&quot; &lt;b&gt; when a &gt; b" classname="./x_test.ts" time="0.001" line="1">
    </testcase>
    <testcase name="fail" classname="./x_test.ts" time="0.001" line="2" col="6">
      <failure message="Uncaught Error: &lt;testsuite tests=&quot;9&quot;&gt;">Error: &lt;testcase name=</failure>
    </testcase>
    <testcase name="ignored" classname="./x_test.ts" time="0.000" line="3" col="6">
      <skipped/>
    </testcase>
    <testcase name="steps" classname="./x_test.ts" time="0.002" line="4" col="6">
      <failure message="1 test step failed">1 test step failed.</failure>
    </testcase>
    <testcase name="steps &gt; s1" classname="./x_test.ts" time="0.000" line="4" col="43">
    </testcase>
    <testcase name="steps &gt; s2 &gt; s3" classname="./x_test.ts" time="0.001" line="4" col="73">
      <failure message="Uncaught Error: x">Error: x</failure>
    </testcase>
  </testsuite>
  <testsuite name="./y_test.ts" tests="1" disabled="0" errors="0" failures="0">
    <testcase name="steps &gt; alone" classname="./y_test.ts" time="0.001" line="1" col="6">
    </testcase>
  </testsuite>
</testsuites>`;

/** Runs the task on a test file with the given text. */
async function runTask(
  source: string,
  ...args: string[]
): Promise<{ code: number; lastLine: string; stderr: string }> {
  const folder = await Deno.makeTempDir();
  const file = join(folder, "sample_test.ts");
  await Deno.writeTextFile(file, source);
  const { code, stdout, stderr } = await new Deno.Command("deno", {
    args: [
      ...["run", "--allow-run=deno", "--allow-env=INIT_CWD"],
      ...["--allow-read", `--allow-write=${SCRATCH}`, TASK, ...args, file],
    ],
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  return {
    code,
    lastLine: decoder.decode(stdout).trimEnd().split("\n").at(-1)!,
    stderr: decoder.decode(stderr),
  };
}

Deno.test("countTests() counts tests without steps and skipped ones when given a report", () => {
  assert.deepEqual(countTests(JUNIT), { nPassed: 2, nFailed: 2 });
});

Deno.test("countTests() counts nothing when no test ran", () => {
  const junit = `<testsuites name="deno test" tests="0"></testsuites>`;
  assert.deepEqual(countTests(junit), { nPassed: 0, nFailed: 0 });
});

Deno.test("dealt() gives every item to one hand, and nobody an empty one", () => {
  assert.deepEqual(dealt(["a", "b", "c"], 2), [["a", "c"], ["b"]]);
  assert.deepEqual(dealt(["a"], 2), [["a"]]);
});

Deno.test("splitArguments() keeps the order of the others when --driver is among them", () => {
  const others = ["tests/gpu", "--filter", "rms"];
  assert.deepEqual(splitArguments(others), {
    drivers: "default",
    testArguments: others,
  });
  for (const driver of [["--driver", "all"], ["--driver=all"]]) {
    assert.deepEqual(splitArguments(["tests/gpu", ...driver, "--fail-fast"]), {
      drivers: "all",
      testArguments: ["tests/gpu", "--fail-fast"],
    });
  }
});

Deno.test("splitArguments() refuses --driver when no value follows", () => {
  assert.throws(() => splitArguments(["--driver"]), TypeError);
  assert.throws(() => splitArguments(["--driver="]), TypeError);
});

Deno.test("driverManifests() gives one manifest for each name when the files exist", () => {
  assert.deepEqual(driverManifests("default"), [undefined]);
  assert.deepEqual(driverManifests(`${TASK},default`), [TASK, undefined]);
});

Deno.test("driverManifests() names the file when it does not exist", () => {
  assert.throws(() => driverManifests(`default,${TASK}.json`), {
    message:
      `Cannot test on driver "${TASK}.json": expected the manifest ${TASK}.json: got no such file`,
  });
});

Deno.test("tasks/test.ts ends with the counts and exit code 0 when all tests pass", async () => {
  const result = await runTask(
    `Deno.test("a", () => {}); Deno.test("b", async (t) => { await t.step("c", () => {}); });`,
  );
  assert.equal(result.lastLine, "2 passed, 0 failed", result.stderr);
  assert.equal(result.code, 0);
});

Deno.test("tasks/test.ts adds the runs up and sets the driver when --driver lists several", async () => {
  const result = await runTask(
    `const file = Deno.env.get("VK_DRIVER_FILES");
     Deno.test("a", () => {}); Deno.test("b", () => { if (file === ${
      JSON.stringify(TASK)
    }) throw 1; });`,
    "--driver",
    `default,${TASK}`,
  );
  assert.equal(result.lastLine, "3 passed, 1 failed", result.stderr);
  assert.equal(result.code, 1);
});

Deno.test("tasks/test.ts fails when a file does not load", async () => {
  const result = await runTask(`Deno.test("a", () => {}); throw new Error();`);
  assert.equal(result.lastLine, "0 passed, 1 failed");
  assert.equal(result.code, 1);
});

Deno.test("tasks/test.ts fails when no test runs", async () => {
  const source = `Deno.test("a", () => {});`;
  const result = await runTask(source, "--filter", "nothing");
  assert.equal(result.lastLine, "0 passed, 0 failed");
  assert.match(result.stderr, /expected tests to run: got none/);
  assert.equal(result.code, 1);
});

Deno.test("tasks/test.ts keeps tests from writing when the path is not temporary", async () => {
  const result = await runTask(
    `Deno.test("a", () => Deno.writeTextFileSync("written.tmp", ""));
     Deno.test("b", () => Deno.writeTextFileSync(Deno.makeTempFileSync(), ""));`,
  );
  assert.equal(result.lastLine, "1 passed, 1 failed", result.stderr);
  assert.equal(result.code, 1);
});
