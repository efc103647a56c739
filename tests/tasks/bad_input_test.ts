/** Files that are wrong, given to the tasks that read them: one line, code 1, nothing written. */
import { deepEqual, equal, match } from "node:assert/strict";
import { join } from "node:path";
import { Safetensors, safetensorsChunks } from "../../core/safetensors.ts";
import { directory, writeAtomic } from "../../core/files.ts";
import { D_SAE, makeSae, MODEL } from "./made_sae.ts";
import { blockFile, runTask, scratchFolder, type TaskRun } from "./run_task.ts";
import { collectSmall, SMALL_RECIPE, trainSmall } from "./small_sae.ts";

const FIXTURES = join(import.meta.dirname!, "../fixtures");
const HOSTILE = join(FIXTURES, "hostile-safetensors");

/** Files and folders below a folder, with their lengths. */
function contentsOf(folder: string): string[] {
  return Array.from(Deno.readDirSync(folder)).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory) return [path, ...contentsOf(path)];
    return [`${path} ${Deno.statSync(path).size}`];
  }).sort();
}

function copyFolder(from: string, to: string): void {
  Deno.mkdirSync(to);
  for (const { name } of Deno.readDirSync(from)) {
    Deno.copyFileSync(join(from, name), join(to, name));
  }
}

/** Runs a task that must refuse its input. */
async function refused(
  words: readonly [task: string, ...args: string[]],
  message: RegExp,
  options: { cwd: string; env?: Record<string, string> },
): Promise<void> {
  const before = contentsOf(options.cwd);
  const run: TaskRun = await runTask([...words, "--quiet"], options);
  match(run.stderr, /^error: Cannot [^\n]+\n$/, words.join(" "));
  match(run.stderr, message, words.join(" "));
  equal(run.code, 1);
  equal(run.stdout, "");
  deepEqual(contentsOf(options.cwd), before, words.join(" "));
}

/** Tasks that read a model, with flags that would write where they can. */
const MODEL_TASKS: readonly [task: string, ...args: string[]][] = [
  ["collect", "--out=r", "--text=storybook:1:2"],
  ["steer", "hello"],
  ["chat"],
  ["find", "--out=f", "--text=storybook:1:2"],
  ["eval"],
  ["bench"],
  ["verify", `--expected=${FIXTURES}/tiny-olmo2/expected.safetensors`],
];

Deno.test("tasks refuse hostile safetensors, as a model and as an SAE", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  copyFolder(MODEL, join(cwd, "model"));
  Deno.mkdirSync(join(cwd, "sae"));
  await makeSae(join(cwd, "sae"));
  for (const { name } of Deno.readDirSync(HOSTILE)) {
    const hostile = join(HOSTILE, name);
    Deno.copyFileSync(hostile, join(cwd, "model", "model.safetensors"));
    Deno.copyFileSync(hostile, join(cwd, "sae", "sae_weights.safetensors"));
    await refused(
      ["collect", "--model=model", "--out=r", "--text=storybook:1:2"],
      /\/model\/model\.safetensors": .*: fetch it again$/m,
      { cwd },
    );
    await refused(
      ["steer", "hello", "--sae=sae", "--steer=1=2"],
      /\/sae\/sae_weights\.safetensors": .*: fetch it again$/m,
      { cwd },
    );
  }
});

/** Changes one tensor of a safetensors file. */
async function changeTensor(
  path: string,
  tensor: string,
  change: { dtype?: "I16"; shape?: readonly number[] },
): Promise<void> {
  const [, folder, name] = /^(.*)\/([^/]+)$/.exec(path)!;
  const file = await Safetensors.open(await directory(folder!).open(name!));
  const tensors = await Promise.all(
    [...file.tensors.values()].map(async (info) => ({
      name: info.name,
      dtype: info.dtype,
      shape: info.shape,
      ...(info.name === tensor ? change : {}),
      bytes: await file.bytes(info.name),
    })),
  );
  await writeAtomic(path, safetensorsChunks(tensors));
}

Deno.test("every task refuses a damaged model folder, and says which file and what to do", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const damaged = async (
    name: string,
    damage: (model: string) => void | Promise<void>,
    from = MODEL,
  ): Promise<void> => {
    copyFolder(from, join(cwd, name));
    await damage(join(cwd, name));
  };
  const up = "model.layers.0.mlp.up_proj.weight";
  await damaged("llama", (model) => {
    const config = join(model, "config.json");
    const json = Deno.readTextFileSync(config);
    Deno.writeTextFileSync(config, json.replace('"olmo2"', '"llama"'));
  });
  await damaged("no_config", (model) => {
    Deno.removeSync(join(model, "config.json"));
  });
  await damaged("cut", (model) => {
    Deno.truncateSync(join(model, "model.safetensors"), 5e6);
  });
  await damaged(
    "typed",
    (model) =>
      changeTensor(join(model, "model.safetensors"), up, { dtype: "I16" }),
  );
  await damaged(
    "turned",
    (model) =>
      changeTensor(join(model, "model.safetensors"), up, { shape: [192, 512] }),
  );
  await damaged("shardless", (model) => {
    for (const { name } of Deno.readDirSync(MODEL)) {
      if (!name.startsWith("tokenizer")) continue;
      Deno.copyFileSync(join(MODEL, name), join(model, name));
    }
    Deno.removeSync(join(model, "model-00003-of-00004.safetensors"));
  }, join(FIXTURES, "olmo2-gqa-bf16-sharded"));
  const everywhere: [string, RegExp][] = [
    ["llama", /llama\/config\.json": model_type: .*: name the folder of an /],
    ["cut", /cut\/model\.safetensors": .*got 5000000: .*fetch it again$/m],
    ["shardless", /shardless": shard "model-00003-.*fetch it again$/m],
  ];
  for (const [name, message] of everywhere) {
    for (const [task, ...args] of MODEL_TASKS) {
      await refused([task, ...args, `--model=${name}`], message, { cwd });
    }
  }
  const once: [string, RegExp][] = [
    ["no_config", /"config\.json": no such file in ".*no_config": put it/],
    ["typed", /typed\/model\.safetensors": tensor ".*up_proj.*got I16 \[512, /],
    [
      "turned",
      /turned\/model\.safetensors": tensor ".*up_proj.*\[192, 512\]: /,
    ],
  ];
  for (const [name, message] of once) {
    const [task, ...args] = MODEL_TASKS[0]!;
    await refused([task, ...args, `--model=${name}`], message, { cwd });
  }
});

Deno.test("tasks write nothing when a text is faulty far from its beginning", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const good = new TextEncoder().encode("A dog ran home.\n\n".repeat(50));
  const file = (name: string, ...end: number[]): void =>
    Deno.writeFileSync(join(cwd, name), Uint8Array.of(...good, ...end));
  file("latin.txt", 0x63, 0x61, 0x66, 0xe9, 0x0a);
  const line = '{"text": "A dog ran home."}\n';
  Deno.writeTextFileSync(
    join(cwd, "empty.jsonl"),
    `${line.repeat(50)}{"text": " "}\n`,
  );
  const cases: [string, RegExp][] = [
    ["latin.txt", /latin\.txt" line 101: expected UTF-8: .*: convert the file/],
    ["empty.jsonl", /empty\.jsonl" line 51: .*empty text: correct or remove/],
  ];
  for (const [text, message] of cases) {
    await refused(["collect", `--text=${text}`, "--out=r"], message, { cwd });
    await refused(["find", `--text=${text}`, "--out=f"], message, { cwd });
  }
  // What is not asked for may be faulty.
  const words = ["--text=latin.txt", "--documents=50", "--out=r"];
  const run = await runTask(["collect", ...words], { cwd });
  equal(run.code, 0, run.stderr);
  match(run.stdout, / from 50 documents /);
});

Deno.test("tasks refuse a context longer than the model's, and layers and features that are not there", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  Deno.mkdirSync(join(cwd, "sae"));
  await makeSae(join(cwd, "sae"));
  const sae = "--sae=sae";
  const cases: [[string, ...string[]], RegExp][] = [
    [["collect", "--out=r", "--context=513"], /is 512 tokens: shorten it$/m],
    [
      ["find", "--out=f", "--text=storybook:1:2", "--context=513"],
      /is 512 tokens: shorten it$/m,
    ],
    [["steer", "hello", "--max-tokens=512"], /is 512 tokens: shorten it$/m],
    [["chat", "--max-tokens=512"], /is 512 tokens: shorten it$/m],
    [["collect", "--out=r", "--hook=resid_post[99]"], /layer from 0 to 7/],
    [["eval", sae, "--layer=99"], /layer 99 as asked: .*leave --layer out$/m],
    [["find", "dog", sae, "--layer=99"], /leave --layer out$/m],
    [["steer", "hello", sae, `--steer=${D_SAE}=1`], /expected 0 to 63, /],
    [["chat", sae, `--steer=${D_SAE}=1`], /expected 0 to 63, /],
    [["find", sae, `--feature=${D_SAE}`], /a feature from 0 to 63, /],
    [["steer", "hello", sae, "--steer=1=NaN"], /with a finite number/],
    [["chat", sae, "--steer=1=NaN"], /with a finite number/],
    [["steer", "hello", "--logit-bias=5"], /"5": expected ID=BIAS, such as /],
    [["steer", "hello", "--logit-bias=5=+inf"], /expected ID=BIAS, such as /],
    [["chat", "--logit-bias=4096=1"], /token 4096: .* from 0 to 4095$/m],
    [["chat", "--logit-bias=5=101"], /token 5 by 101: .* or -Infinity$/m],
    [
      ["steer", "hello", "--repetition-penalty=0"],
      /penalty of 0: .* above 0$/m,
    ],
    [["quickstart", "--out=sae"], /got other files \(".*"\): .*--out$/m],
  ];
  for (const [words, message] of cases) await refused(words, message, { cwd });
});

Deno.test("tasks write nothing when there is no adapter", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const none = join(cwd, "none.json");
  const env = {
    VK_DRIVER_FILES: none,
    VK_ICD_FILENAMES: none,
    DENO_WEBGPU_BACKEND: "vulkan",
  };
  await collectSmall(cwd, "residuals");
  const message = /found no adapter: install a Vulkan driver .*apt-get install/;
  for (
    const words of [
      ["quickstart", "--out=q"],
      ["collect", "--out=r"],
      ["train", "--residuals=residuals", "--out=s"],
      ["steer", "hello"],
      ["chat"],
      ["find", "dog"],
      ["find", "--out=f", "--text=storybook:1:2"],
      ["eval"],
      ["verify"],
      ["bench"],
    ] as const
  ) {
    await refused(words, message, { cwd, env });
  }
});

Deno.test("train refuses a damaged checkpoint, and leaves it where it is", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  await trainSmall(cwd, "done");
  const words = ["--residuals=residuals", ...SMALL_RECIPE, "--out=here"];
  const notOurs = join(HOSTILE, "../tiny-olmo2/expected.safetensors");
  const hostile = Array.from(
    Deno.readDirSync(HOSTILE),
    ({ name }) => join(HOSTILE, name),
  );
  for (const file of [...hostile, notOurs]) {
    Deno.removeSync(
      blockFile(join(cwd, "done"), join(cwd, "here"), "checkpoint.safetensors"),
    );
    Deno.copyFileSync(file, join(cwd, "here", "checkpoint.safetensors"));
    // The settings are written before: as many bytes each time.
    Deno.copyFileSync(
      join(cwd, "done", "train.json"),
      join(cwd, "here", "train.json"),
    );
    await refused(
      ["train", ...words],
      /\/here\/checkpoint\.safetensors": .*: remove it to begin anew$/m,
      { cwd },
    );
    Deno.removeSync(join(cwd, "here"), { recursive: true });
  }
});
