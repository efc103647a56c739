import { deepEqual, equal, match } from "node:assert/strict";
import { join } from "node:path";
import { storybook } from "../../core/storybook.ts";
import { runTask, scratchFolder } from "./run_task.ts";

Deno.test("storybook writes the documents of its seed, a JSON line each", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const words = ["--docs", "1500", "--seed", "42", "--out", "new/s.jsonl"];
  const { code, stdout } = await runTask(["storybook", ...words], { cwd });
  equal(code, 0);
  equal(stdout, "");
  const lines = Deno.readTextFileSync(join(cwd, "new/s.jsonl")).split("\n");
  equal(lines.pop(), "");
  const documents = storybook(42);
  deepEqual(
    lines.map((line) => JSON.parse(line)),
    lines.map(() => documents.next().value),
  );
  equal(lines.length, 1500);
});

Deno.test("storybook refuses to replace a file", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const file = join(cwd, "mine.jsonl");
  Deno.writeTextFileSync(file, "mine");
  const words = ["--docs=2", "--out=mine.jsonl"];
  const { code, stderr } = await runTask(["storybook", ...words], { cwd });
  equal(code, 1);
  match(
    stderr,
    /^error: Cannot write ".*mine\.jsonl": expected a new file: .*--out.*\n$/,
  );
  equal(Deno.readTextFileSync(file), "mine");
});

Deno.test("storybook refuses a name that other tasks would not read", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const words = ["--out", "corpus.txt"];
  const { code, stderr } = await runTask(["storybook", ...words], { cwd });
  equal(code, 1);
  match(stderr, /^error: Cannot write ".*corpus\.txt": .*\.jsonl.*\n$/);
  equal([...Deno.readDirSync(cwd)].length, 0);
});
