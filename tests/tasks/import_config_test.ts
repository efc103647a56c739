import { deepEqual, equal, match } from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { mergeConfig, parseFlags } from "../../core/flags.ts";
import { RECIPE_FLAGS, recipeOf } from "../../tasks/recipe_flags.ts";
import { runTask, scratchFolder } from "./run_task.ts";

const CONFIG = `# a small one
size = 2 ** 9
config = {
    "hidden_size": size,
    "batch_size": 1_28,   # vectors
    "learning_rate": 2e-4, "num_epochs": 1,
    "lambda_final": 8,
    "wandb_name": "small",
}
`;

Deno.test("import-config writes a file that train takes, and says how λ was converted", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  Deno.writeTextFileSync(join(cwd, "small.py"), CONFIG);
  const words = ["small.py", "--vectors=1280", "--input-scale=0.5"];
  const run = await runTask(
    ["import-config", ...words, "--out=small.json"],
    { cwd },
  );
  equal(run.code, 0, run.stderr);
  match(run.stdout, /^converted: lambda: .* λ' = s·λ: 2 · 0\.5 = 1$/m);
  match(run.stdout, /^ignored: wandb_name: not a matter of the recipe$/m);
  match(run.stdout, /^config: .*small\.json\n$/m);
  const json = JSON.parse(Deno.readTextFileSync(join(cwd, "small.json")));
  const flags = parseFlags(RECIPE_FLAGS, ["--lr=0.001"], {
    name: "train",
    description: "",
    config: mergeConfig(RECIPE_FLAGS, json, "small.json"),
  });
  if ("help" in flags) throw new Error("help");
  const { d_sae, lambda, steps, lr } = recipeOf(flags);
  deepEqual([d_sae, lambda, steps, lr], [512, 1, 10, 0.001]);
  const printed = await runTask(["import-config", ...words], { cwd });
  deepEqual(JSON.parse(printed.stdout), json);
  match(printed.stderr, /^converted: lambda: /m);
});

Deno.test("import-config executes nothing, and names the line of what is no literal", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const trap = join(cwd, "trap");
  const evil = `config = {"a": 1}\nopen(${JSON.stringify(trap)}, "w")\n`;
  Deno.writeTextFileSync(join(cwd, "evil.py"), evil);
  const run = await runTask(["import-config", "evil.py"], { cwd });
  equal(run.code, 1);
  match(
    run.stderr,
    /^error: Cannot read "evil\.py" line 2: expected assignments of .*, which are read and never executed: got "open"$/m,
  );
  equal(existsSync(trap), false);
  Deno.writeTextFileSync(join(cwd, "other.py"), "settings = {}\n");
  const other = await runTask(["import-config", "other.py"], { cwd });
  match(
    other.stderr,
    /^error: .*expected the assignment config = \{…\}: got none$/m,
  );
});
