import { deepEqual, equal } from "node:assert/strict";
import type { ResidualManifest } from "../../core/residual_manifest.ts";
import { ResidualFolder } from "../../core/residuals.ts";
import { memoryFolder } from "../../core/source.ts";
import { checkResiduals } from "../../train/residual_check.ts";
import { joinFolders, mergeTasks } from "../../train/residual_merge.ts";
import { claimResiduals } from "../../train/residual_output.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { madeFolder, madeRows } from "./made_residuals.ts";
import { memoryStore } from "./memory_store.ts";

type Files = Record<string, Uint8Array>;

/** What task i of three has written. */
const taskFiles = (
  index: number,
  manifest: Partial<ResidualManifest> = {},
): Files =>
  madeFolder({
    // The second found no document of its own.
    shards: index === 1 ? [] : [10 + index, 7],
    manifest: { shard: { index, count: 3 }, ...manifest },
  });

function threeTasks(): Files {
  return Object.assign({}, ...[0, 1, 2].map((index) => taskFiles(index)));
}

Deno.test("mergeTasks() writes one manifest of all tasks, and touches nothing else", async () => {
  const files = threeTasks();
  const before = { ...files };
  const merged = await mergeTasks(memoryStore(files));
  const { "manifest.json": manifest, ...others } = files;
  deepEqual(others, before);
  deepEqual(JSON.parse(new TextDecoder().decode(manifest)), merged);
  equal(merged.n_tokens, 10 + 7 + 12 + 7);
  equal(merged.n_documents, 6);
  equal(merged.shard, undefined);
  deepEqual((await checkResiduals(memoryFolder("r", files))).faults, []);
  const folder = await ResidualFolder.open(memoryFolder("r", files));
  const [first] = await Array.fromAsync(folder.batches());
  deepEqual(first!.rows, madeRows(0, 10));
  deepEqual(await mergeTasks(memoryStore(files)), merged);
});

Deno.test("mergeTasks() names the task that is missing, not done or of another run, and writes nothing", async () => {
  const whole = threeTasks();
  const without = (name: string): Files =>
    Object.fromEntries(Object.entries(whole).filter(([file]) => file !== name));
  const cases: [Files, RegExp][] = [
    [{}, /expected manifests of the tasks .*: got none/],
    [
      without("manifest_001-of-003.json"),
      /expected manifest_001-of-003\.json: got none: run collect with --shard 1\/3$/,
    ],
    [
      without("shard_002-of-003_00001.parquet"),
      /expected "shard_002-of-003_00001\.parquet": got none/,
    ],
    [
      { ...whole, ...taskFiles(2, { done: false }) },
      /expected task 2 of 3 to be done: got 19 vectors so far/,
    ],
    [
      {
        ...whole,
        "manifest_001-of-003.json": whole["manifest_000-of-003.json"]!,
      },
      /expected manifest_001-of-003\.json of its task: got a copy of manifest_000-of-003\.json: run collect with --shard 1\/3$/,
    ],
    [
      { ...whole, ...taskFiles(0, { fingerprint: "g" }) },
      /expected tasks of one configuration: got another one of task 1/,
    ],
    [
      { ...whole, ...taskFiles(2, { hookPoint: "resid_post[2]" }) },
      /expected the same hook point: got resid_post\[3\] in "0" and resid_post\[2\] in "2"$/,
    ],
    [
      { ...whole, ...taskFiles(0, { shard: { index: 0, count: 4 } }) },
      /got those of [34] and of [34] tasks/,
    ],
  ];
  for (const [files, message] of cases) {
    const names = Object.keys(files);
    await rejectsInOneLine(() => mergeTasks(memoryStore(files)), message);
    deepEqual(Object.keys(files), names);
  }
});

Deno.test("joinFolders() copies shards into a new folder, goes on when it was stopped, and checks every copy", async () => {
  const parts = [
    madeFolder({ shards: [10, 20], manifest: { text: "a" } }),
    madeFolder({
      shards: [30],
      manifest: { text: "b", contextLength: 512, skipFirst: 2 },
    }),
  ].map((files, i) => memoryFolder(`part ${i}`, files));
  const straight: Files = {};
  const merged = await joinFolders(parts, memoryStore(straight), {
    fingerprint: "j",
  });
  deepEqual(
    [merged.n_tokens, merged.n_documents, merged.done, merged.text],
    [60, 4, true, "a + b"],
  );
  // What holds for all of them.
  deepEqual([merged.contextLength, merged.skipFirst], [512, 0]);
  deepEqual((await checkResiduals(memoryFolder("c", straight))).faults, []);
  const files: Files = {};
  let nWrites = 0;
  const failing = memoryStore(files, {
    beforeWrite(): void {
      if (++nWrites === 4) throw new Error("no space left");
    },
  });
  const join = (store = memoryStore(files)) =>
    joinFolders(parts, store, { fingerprint: "j" });
  await rejectsInOneLine(() => join(failing), /no space left/);
  equal(Object.keys(files).length, 2);
  await join();
  deepEqual(files, straight);
  const [part] = parts;
  const damaged = {
    ...part!,
    open: async (file: string) => {
      const source = await part!.open(file);
      if (!file.includes("shard")) return source;
      return {
        ...source,
        read: async (start: number, end: number) =>
          (await source.read(start, end)).fill(0, 9, 10),
      };
    },
  };
  const out: Files = {};
  await rejectsInOneLine(
    () =>
      joinFolders([damaged, parts[1]!], memoryStore(out), { fingerprint: "j" }),
    /Cannot merge "part 0\/shard-0\.parquet": expected SHA-256/,
  );
  deepEqual(Object.keys(out), ["manifest.json"]);
});

Deno.test("joinFolders() refuses folders that differ, or are not complete, before it writes", async () => {
  const part = (manifest: Partial<ResidualManifest> = {}, d_model = 3) =>
    madeFolder({ shards: [10], d_model, manifest });
  const first = memoryFolder("A", part());
  const cases: [Files, RegExp][] = [
    [
      part({ hookPoint: "final_norm@3" }),
      /the same hook point: got resid_post\[3\] in "A" and final_norm@3 in "B"/,
    ],
    [
      part({ layout: "list" }),
      /the same layout: got binary in "A" and list in "B"/,
    ],
    [
      part({ text: "of the same shards" }),
      /Cannot merge "B": expected shards that no other folder has: got "shard-0\.parquet", which is in "A" too: name each folder once$/,
    ],
    [
      part({ done: false }),
      /Cannot merge "B": expected a complete collection/,
    ],
    [part({}, 4), /the same d_model: got 3 in "A" and 4 in "B"/],
    [
      part({
        model: { name: "other", fingerprint: "x", d_model: 3, n_layers: 8 },
      }),
      /the same model: got tiny \(abc\) in "A" and other \(x\) in "B"/,
    ],
  ];
  for (const [files, message] of cases) {
    const out: Files = {};
    const folders = [first, memoryFolder("B", files)];
    await rejectsInOneLine(
      () => joinFolders(folders, memoryStore(out), { fingerprint: "j" }),
      message,
    );
    deepEqual(out, {});
  }
});

Deno.test("claimResiduals() goes on in the folder of the same run, and refuses all others without a trace", async () => {
  const whole = madeFolder({ shards: [5] });
  const task = taskFiles(0);
  const text = new TextEncoder().encode("text");
  const cases: [Files, number | undefined, RegExp][] = [
    [{ "notes.txt": text }, undefined, /got other files \("notes\.txt"\)/],
    [
      { ...whole, "notes.txt": text },
      0,
      /got other files \("manifest\.json"\)/,
    ],
    [{ ...task, "notes.txt": text }, 1, /got other files \("notes\.txt"\)/],
    [task, undefined, /got the files of 3 tasks/],
    [
      { ...taskFiles(2, { fingerprint: "g" }) },
      0,
      /got a residuals run of another configuration/,
    ],
    [
      madeFolder({ shards: [5], manifest: { fingerprint: "g" } }),
      undefined,
      /got a residuals run of another configuration: choose another folder with --out$/,
    ],
    [
      { "manifest.json": new TextEncoder().encode('{"kind": "sae"}') },
      undefined,
      /got a run of kind sae/,
    ],
  ];
  for (const [files, index, message] of cases) {
    const before = { ...files };
    const shard = index === undefined ? undefined : { index, count: 3 };
    await rejectsInOneLine(
      () => claimResiduals(memoryStore(files), { fingerprint: "f", shard }),
      message,
    );
    deepEqual(files, before);
  }
  await using again = await claimResiduals(memoryStore(whole), {
    fingerprint: "f",
  });
  equal(again.before?.n_tokens, 5);
});

Deno.test("claimResiduals() removes what a killed write of its own task left, and gives its task to one at a time", async () => {
  const files: Files = {
    ".shard_000-of-003_00000.parquet.1.tmp": new Uint8Array(1),
    ".shard_001-of-003_00000.parquet.1.tmp": new Uint8Array(1),
    ".manifest_000-of-003.json.1.tmp": new Uint8Array(1),
    ".001-of-003.lock": new Uint8Array(1),
  };
  const store = memoryStore(files);
  const options = { fingerprint: "f", shard: { index: 0, count: 3 } };
  {
    await using claim = await claimResiduals(store, options);
    equal(claim.before, undefined);
    deepEqual(Object.keys(files), [
      ".shard_001-of-003_00000.parquet.1.tmp",
      ".001-of-003.lock",
    ]);
    await rejectsInOneLine(() => claimResiduals(store, options), /taken/);
    const other = { ...options, shard: { index: 1, count: 3 } };
    await using _ = await claimResiduals(store, other);
  }
  await using _again = await claimResiduals(store, options);
});
