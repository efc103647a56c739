import { deepEqual, equal, match, ok } from "node:assert/strict";
import { join } from "node:path";
import { directory, readManifest } from "../../core/files.ts";
import { ResidualFolder } from "../../core/residuals.ts";
import { runTask, scratchFolder, startTask } from "./run_task.ts";

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;

/** Every file of a folder by name. */
function filesOf(folder: string): Record<string, Uint8Array> {
  return Object.fromEntries(
    Array.from(Deno.readDirSync(folder), ({ name }) => name).sort()
      .map((name) => [name, Deno.readFileSync(join(folder, name))]),
  );
}

Deno.test("collect says what it holds and writes a folder that training reads", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const words = ["--documents=3", "--out=residuals", "--tokens=100"];
  const { code, stdout, stderr } = await runTask(["collect", ...words], {
    cwd,
  });
  equal(code, 0, stderr);
  match(
    stdout,
    /^100 vectors of resid_post\[3\] from 3 documents in 1 shard \(/,
  );
  match(
    stderr,
    /^GPU: .+\nmemory: [\d.]+ MB = 4 blocks of the model 5\.19 MB \+ /m,
  );
  const residuals = await ResidualFolder.open(
    directory(join(cwd, "residuals")),
  );
  const { model, text, contextLength, done } = residuals.manifest;
  deepEqual([model.name, text, contextLength, done], [
    "tiny-olmo2",
    "storybook:101:3000",
    256,
    true,
  ]);
});

/** Waits until the manifest lists so many shards; how many it lists then. */
async function shardsOf(folder: string, n: number): Promise<number> {
  for (let waited = 0; waited < 60_000; waited += 2) {
    const shards = await readManifest(folder)
      .then(({ shards }) => Array.isArray(shards) ? shards.length : 0)
      .catch(() => 0);
    if (shards >= n) return shards;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error(`no ${n} shards in "${folder}" after 60 s`);
}

Deno.test("collect refuses a folder that another process writes; it stops at Ctrl-C, keeps complete shards and says how to go on", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const words = ["--text=storybook:101:2000", "--shard-rows=200", "--out=r"];
  const child = startTask(["collect", ...words], { cwd });
  const output = child.output();
  await shardsOf(join(cwd, "r"), 1);
  const second = await runTask(["collect", ...words, "--quiet"], { cwd });
  equal(second.code, 1);
  match(
    second.stderr,
    new RegExp(
      `^error: Cannot write to ".*/r": process ${child.pid} on [^\\n]+ is writing there: [^\\n]+\\n$`,
    ),
  );
  child.kill("SIGINT");
  const { code, stderr } = await output;
  equal(code, 130);
  match(
    new TextDecoder().decode(stderr),
    /\nstopped by Ctrl-C: the same command goes on after the last complete shard\n$/,
  );
  const { manifest } = await ResidualFolder.open(directory(join(cwd, "r")));
  equal(manifest.done, false);
  ok(manifest.n_tokens >= 200);
});

Deno.test("collect says so in one line when a shard cannot be written, and goes on when it can", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const words = ["--text=storybook:101:20", "--quiet"];
  equal((await runTask(["collect", ...words, "--out=whole"], { cwd })).code, 0);
  const r = join(cwd, "r");
  // A folder in the place of the file: writing fails as it does on a full disk.
  const obstacle = join(r, "shard_00000.parquet");
  Deno.mkdirSync(obstacle, { recursive: true });
  const full = await runTask(["collect", ...words, "--out=r"], { cwd });
  equal(full.code, 1);
  equal(full.stdout, "");
  match(
    full.stderr,
    /^error: Cannot write ".*\/r\/shard_00000\.parquet": [^\n]+\n$/,
  );
  Deno.removeSync(obstacle);
  deepEqual(Object.keys(filesOf(r)), ["manifest.json"]);
  const resumed = await runTask(["collect", ...words, "--out=r"], { cwd });
  equal(resumed.code, 0, resumed.stderr);
  const { manifest } = await ResidualFolder.open(directory(join(cwd, "r")));
  deepEqual([manifest.done, manifest.n_documents], [true, 20]);
});

Deno.test("collect refuses the folder of another run, and leaves it alone", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const words = ["--text=storybook:101:2", "--out=r", "--hook=resid_post[0]"];
  equal((await runTask(["collect", ...words], { cwd })).code, 0);
  const before = filesOf(join(cwd, "r"));
  const other = await runTask(["collect", ...words, "--context=32"], { cwd });
  equal(other.code, 1);
  match(
    other.stderr,
    /^error: Cannot write to ".*\/r": .*got a residuals run of another configuration: choose another folder with --out$/m,
  );
  deepEqual(filesOf(join(cwd, "r")), before);
  // What a document without text has ended goes on where such are passed over: all else is the same.
  const again = await runTask(["collect", ...words, "--skip-empty"], { cwd });
  equal(again.code, 0, again.stderr);
  match(again.stderr, /^complete already$/m);
});

Deno.test("collect refuses bad input in one line and writes nothing", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  Deno.writeTextFileSync(join(cwd, "empty.txt"), "\n \n");
  Deno.writeFileSync(join(cwd, "latin.txt"), Uint8Array.of(0x61, 0xe9, 0x0a));
  Deno.writeTextFileSync(join(cwd, "no.jsonl"), '{"body": "x"}\n');
  Deno.writeTextFileSync(join(cwd, "text.csv"), "a,b\n");
  const cases: [string[], RegExp][] = [
    [
      ["--text=empty.txt"],
      /Cannot read ".*empty\.txt": expected text: got none/,
    ],
    [["--text=latin.txt"], /Cannot read ".*latin\.txt" line 1: expected UTF-8/],
    [
      ["--text=no.jsonl"],
      /Cannot read ".*no\.jsonl" line 1: .*"text".*got body/,
    ],
    [
      ["--text=text.csv"],
      /Cannot read text from ".*text\.csv": .*txt, jsonl, parquet/,
    ],
    [["--text=missing.txt"], /Cannot open "missing\.txt": no such file/],
    [
      ["--text=storybook:101"],
      /storybook:101": it is endless: write storybook:101:3000/,
    ],
    [
      ["--text=storybook:x"],
      /Cannot read "storybook:x": expected storybook:SEED/,
    ],
    [["--hook=resid_post[8]"], /Cannot hook "resid_post\[8\]": .*0 to 7/],
    [
      ["--hook=mlp[3]"],
      /Cannot parse hook point "mlp\[3\]": expected resid_post\[l\]/,
    ],
    [
      ["--context=513"],
      /--context 513: the context of model ".*" is 512 tokens/,
    ],
    [
      ["--context=8", "--skip-first=8"],
      /--skip-first 8: expected fewer than the 8 tokens of a context/,
    ],
    [["--model=none"], /Cannot open folder ".*none": no such file or folder/],
    [
      ["--shard-rows=0"],
      /expected --shard-rows to be a whole number, 1 or more: got 0/,
    ],
    [["--hold-out=1"], /no flag --hold-out/],
  ];
  const before = filesOf(cwd);
  const runs = cases.map(async ([words, message]) => {
    const run = await runTask(["collect", "--out=r", ...words], { cwd });
    equal(run.code, 1, words.join(" "));
    equal(run.stdout, "");
    match(run.stderr, new RegExp(`^error: .*${message.source}.*\n$`));
  });
  await Promise.all(runs);
  deepEqual(filesOf(cwd), before);
});

Deno.test("collect refuses damaged model folders in one line and writes nothing", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const break_ = (name: string, damage: (model: string) => void): void => {
    const model = join(cwd, name);
    Deno.mkdirSync(model);
    for (const { name: file } of Deno.readDirSync(MODEL)) {
      Deno.copyFileSync(join(MODEL, file), join(model, file));
    }
    damage(model);
  };
  const edit = (
    path: string,
    change: (config: Record<string, unknown>) => void,
  ): void => {
    const config = JSON.parse(Deno.readTextFileSync(path));
    change(config);
    Deno.writeTextFileSync(path, JSON.stringify(config));
  };
  break_(
    "cut",
    (model) => Deno.truncateSync(join(model, "model.safetensors"), 5e6),
  );
  break_(
    "unweighted",
    (model) => Deno.removeSync(join(model, "model.safetensors")),
  );
  break_(
    "llama",
    (model) =>
      edit(join(model, "config.json"), (config) => config.model_type = "llama"),
  );
  break_(
    "wider",
    (model) =>
      edit(
        join(model, "config.json"),
        (config) => config.intermediate_size = 513,
      ),
  );
  const cases: [string, RegExp][] = [
    ["cut", /Cannot read ".*cut\/model\.safetensors": .*/],
    ["unweighted", /"[^"]*unweighted.*model\.safetensors/],
    [
      "llama",
      /"[^"]*llama\/config\.json": model_type: expected "olmo2": got "llama"/,
    ],
    [
      "wider",
      /"[^"]*wider[^"]*": tensor "model\.layers\.0\.mlp\.[a-z_]+\.weight" .*513/,
    ],
  ];
  for (const [name, message] of cases) {
    const words = [`--model=${name}`, "--out=r", "--quiet"];
    const run = await runTask(["collect", ...words], { cwd });
    equal(run.code, 1, name);
    match(run.stderr, new RegExp(`^error: .*${message.source}.*\n$`));
  }
  deepEqual(
    Array.from(Deno.readDirSync(cwd), (entry) => entry.name).sort(),
    ["cut", "llama", "unweighted", "wider"],
  );
});
