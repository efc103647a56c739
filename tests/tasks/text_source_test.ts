/** Texts of the hub and compressed ones, as a person gives them to tasks. */
import { deepEqual, equal, match } from "node:assert/strict";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { parquetWriteBuffer } from "hyparquet-writer";
import { storybook } from "../../core/storybook.ts";
import { FakeHub } from "../core/hub_server.ts";
import { runTask, scratchFolder } from "./run_task.ts";

const COMMIT = "a".repeat(40);
const STORIES = [...storybook(101).take(40)].map(({ text }) => text);
const TRAIN = [
  ...["--d-sae=64", "--batch=64", "--hold-out=0", "--context=64"],
  ...["--hook=resid_post[0]", "--autotune=off", "--quiet"],
];

function parquet(texts: readonly string[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(parquetWriteBuffer({
    columnData: [{ name: "text", data: [...texts], type: "STRING" }],
  }));
}

Deno.test("train reads a dataset of the hub, and the same commit again when it goes on", async () => {
  await using hub = new FakeHub();
  using folder = scratchFolder();
  const cwd = folder.path;
  const env = {
    HF_HOME: join(cwd, "hf"),
    HF_HUB_CACHE: "",
    HF_ENDPOINT: hub.endpoint,
    HF_TOKEN: "",
  };
  hub.repos["datasets/owner/stories"] = {
    commit: COMMIT,
    files: { "data/train.parquet": parquet(STORIES) },
  };
  const train = (...words: string[]) =>
    runTask(["train", "--out=sae", ...TRAIN, ...words], { cwd, env });
  const first = await train("--text=owner/stories/data", "--steps=2");
  equal(first.code, 0, first.stderr);
  const config = JSON.parse(Deno.readTextFileSync(join(cwd, "sae/cfg.json")));
  const pinned = `owner/stories/data@${COMMIT}`;
  match(JSON.stringify(config), new RegExp(pinned));
  // The branch stands for a commit that this hub refuses: asked for it, the run would end.
  hub.revisions["main"] = "b".repeat(40);
  const again = await train("--text=owner/stories/data", "--steps=2");
  equal(again.code, 0, again.stderr);
  // A task without the network says how to fetch it.
  const find = await runTask(
    ["find", "dragon", "--text=owner/stories"],
    { cwd, env },
  );
  equal(find.code, 1);
  match(
    find.stderr,
    /^error: Cannot open text "owner\/stories": no such file or folder, and nothing of it is in the Hugging Face cache as a dataset: run \.\/ocs download --type dataset owner\/stories\n$/m,
  );
  const fetched = await runTask(
    ["download", "--type=dataset", "owner/stories", `--revision=${COMMIT}`],
    { cwd, env },
  );
  equal(fetched.code, 0, fetched.stderr);
  const scored = await runTask([
    "score",
    `--text=owner/stories@${COMMIT}`,
    "--documents=2",
  ], { cwd, env });
  equal(scored.code, 0, scored.stderr);
  match(scored.stdout, /of 2 documents/);
});

Deno.test("train reads a folder of compressed text, and refuses what is damaged before it writes", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const lines = STORIES.map((text) => JSON.stringify({ text })).join("\n");
  const bytes = gzipSync(new TextEncoder().encode(lines));
  Deno.mkdirSync(join(cwd, "texts/deep"), { recursive: true });
  Deno.writeFileSync(join(cwd, "texts/deep/a.jsonl.gz"), bytes);
  const words = ["train", "--text=texts", "--steps=1", ...TRAIN] as const;
  const whole = await runTask([...words, "--out=sae"], { cwd });
  equal(whole.code, 0, whole.stderr);
  Deno.writeFileSync(join(cwd, "texts/b.jsonl.gz"), bytes.subarray(0, 900));
  const refused = await runTask([...words, "--out=other"], { cwd });
  equal(refused.code, 1);
  match(
    refused.stderr,
    /^error: Cannot read ".*\/texts\/b\.jsonl\.gz": expected whole gzip data: [^\n]*\n$/,
  );
  deepEqual(
    Array.from(Deno.readDirSync(cwd), ({ name }) => name).sort(),
    ["sae", "texts"],
  );
});
