import { deepEqual, equal, match } from "node:assert/strict";
import { join } from "node:path";
import { directory } from "../../core/files.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { runTask, scratchFolder } from "./run_task.ts";

const FIXTURE = new URL("../fixtures/residual-parquet", import.meta.url)
  .pathname;

Deno.test("train and eval take the files of another tool, when they are told the model and the hook point", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const train = (...words: string[]) =>
    runTask([
      "train",
      `--residuals=${FIXTURE}`,
      "--out=sae",
      "--d-sae=64",
      "--batch=32",
      "--steps=3",
      "--hold-out=20",
      "--quiet",
      ...words,
    ], { cwd });
  const cases: [string[], RegExp][] = [
    [
      [],
      /expected a hook point, which its files do not tell: got none: give --hook, such as final_norm@15 /,
    ],
    [["--hook=final_norm@3"], /expected a model, .*: give --model-name\n$/],
    [["--hook=mlp[3]"], /Cannot parse hook point "mlp\[3\]"/],
  ];
  for (const [words, message] of cases) {
    const run = await train(...words);
    equal(run.code, 1);
    match(run.stderr, /^error: [^\n]+\n$/);
    match(run.stderr, message);
  }
  deepEqual([...Deno.readDirSync(cwd)], []);
  const trained = await train("--hook=final_norm@3", "--model-name=tiny-olmo2");
  equal(trained.code, 0, trained.stderr);
  const { metadata } = await SaeFile.open(directory(join(cwd, "sae")));
  deepEqual(
    [metadata.hookPoint, metadata.modelName, metadata.modelFingerprint],
    ["final_norm@3", "tiny-olmo2", undefined],
  );
  const words = ["--sae=sae", `--residuals=${FIXTURE}`, "--no-loss", "--json"];
  const measured = await runTask(["eval", ...words], { cwd });
  equal(measured.code, 0, measured.stderr);
  equal(JSON.parse(measured.stdout).vectors.nTokens, 300);
});
