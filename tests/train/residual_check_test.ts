import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { directory } from "../../core/files.ts";
import type { ResidualManifest } from "../../core/residual_manifest.ts";
import { memoryFolder } from "../../core/source.ts";
import { checkResiduals } from "../../train/residual_check.ts";
import { damageRow, madeFolder, madeRows } from "./made_residuals.ts";

type Files = Record<string, Uint8Array<ArrayBuffer>>;

const check = (files: Files) => checkResiduals(memoryFolder("r", files));
const faultsOf = async (files: Files) => (await check(files)).faults;

/** Files with the manifest changed. */
function edited(
  files: Files,
  change: (manifest: ResidualManifest) => Partial<ResidualManifest>,
  file = "manifest.json",
): Files {
  const manifest = JSON.parse(new TextDecoder().decode(files[file]));
  const json = JSON.stringify({ ...manifest, ...change(manifest) });
  return { ...files, [file]: new TextEncoder().encode(json) };
}

Deno.test("checkResiduals() finds nothing in a folder that is as it was written, and says how far it is", async () => {
  const files = madeFolder({ shards: [30, 20] });
  const seen: [number, number][] = [];
  const result = await checkResiduals(memoryFolder("r", files), {
    onProgress: (bytes, total) => seen.push([bytes, total]),
  });
  deepEqual(result.faults, []);
  deepEqual([result.nShards, result.nTokens, result.hasManifest], [
    2,
    50,
    true,
  ]);
  equal(seen.length, 2);
  deepEqual(seen[1], [result.bytes, result.bytes]);
});

Deno.test("checkResiduals() tells each fault of a folder in a line that names the file", async () => {
  const whole = madeFolder({ shards: [30, 20] });
  const flipped = {
    ...whole,
    "shard-1.parquet": whole["shard-1.parquet"]!.slice(),
  };
  damageRow(
    flipped["shard-1.parquet"]!,
    madeRows(1, 20).subarray(0, 3),
    0x3f80,
  );
  const bad = {
    ...whole,
    "shard-0.parquet": whole["shard-0.parquet"]!.slice(),
  };
  damageRow(bad["shard-0.parquet"]!, madeRows(0, 30).subarray(21, 24), 0x7f80);
  const { "shard-0.parquet": first, ...missing } = whole;
  const cases: [Files, RegExp[]][] = [
    [flipped, [/"shard-1\.parquet": expected SHA-256 [0-9a-f]{64} .*got /]],
    [bad, [
      /"shard-0\.parquet": expected SHA-256/,
      /shard-0\.parquet": expected finite values: got bits 0x7f80 in row 7/,
    ]],
    [missing, [/shard-0\.parquet/]],
    [{ ...whole, "shard-0.parquet": first!.slice(0, 99) }, [
      /"shard-0\.parquet": expected SHA-256/,
      /shard-0\.parquet": expected \d+ bytes/,
    ]],
    [{ ...whole, ".shard-2.parquet.ab.tmp": first!, "b.parquet": first! }, [
      /"\.shard-2\.parquet\.ab\.tmp": .*a file more/,
      /"b\.parquet": .*a file more/,
    ]],
    [edited(whole, () => ({ done: false })), [
      /expected a complete collection/,
    ]],
    // A manifest that cannot be read leaves its shards unknown: nobody is told to remove them.
    [edited(whole, () => ({ n_tokens: 51 })), [/"n_tokens": expected 50/]],
    [edited(whole, () => ({ hookPoint: "final_norm@3" })), [
      /shard-0\.parquet": expected final_norm@3/,
      /shard-1\.parquet": expected final_norm@3/,
    ]],
    [edited(whole, () => ({ contextLength: 9 })), [
      /shard-0\.parquet": row 9: expected a position from 0 to 8: got 9/,
      /shard-1\.parquet": row 9: /,
    ]],
    [edited(whole, () => ({ skipTokens: [25] })), [
      /shard-0\.parquet": row 25: expected a token that was not left out: got 25/,
    ]],
  ];
  for (const [files, patterns] of cases) {
    const faults = await faultsOf(files);
    equal(faults.length, patterns.length, faults.join("\n"));
    ok(faults.every((fault) => !fault.includes("\n")));
    for (const [i, pattern] of patterns.entries()) match(faults[i]!, pattern);
  }
});

Deno.test("checkResiduals() knows the tasks of one collection before and after they are merged", async () => {
  const task = (index: number): Files =>
    madeFolder({
      shards: [20],
      manifest: { shard: { index, count: 2 } },
    });
  const both = { ...task(0), ...task(1) };
  deepEqual(await faultsOf(both), [
    '"r": expected manifest.json: got none: run ./ocs data merge',
  ]);
  deepEqual(await faultsOf(task(1)), [
    '"r": expected manifest_000-of-002.json: got none: run task 0',
  ]);
  const many = madeFolder({
    shards: [],
    manifest: { shard: { index: 0, count: 4e9 } },
  });
  equal((await faultsOf(many)).length, 100);
  const shards = [0, 1].flatMap((i) =>
    JSON.parse(
      new TextDecoder().decode(both[`manifest_00${i}-of-002.json`]),
    ).shards
  );
  const whole = edited(
    {
      ...both,
      "manifest.json": (madeFolder({ shards: [20] }))["manifest.json"]!,
    },
    () => ({ shards, n_tokens: 40 }),
  );
  deepEqual(await faultsOf(whole), []);
  const half = edited(whole, () => ({ shards: [shards[0]], n_tokens: 20 }));
  const faults = await faultsOf(half);
  equal(faults.length, 2, faults.join("\n"));
  match(
    faults[0]!,
    /expected "shard_001-of-002_00000\.parquet" as manifest_001-of-002\.json has it: got none/,
  );
  match(faults[1]!, /"shard_001-of-002_00000\.parquet": .*a file more/);
});

Deno.test("checkResiduals() checks the vectors of files that another tool left without a manifest", async () => {
  const fixture = directory(
    new URL("../fixtures/residual-parquet", import.meta.url).pathname,
  );
  const { faults, nTokens, hasManifest } = await checkResiduals(fixture);
  deepEqual([faults, nTokens, hasManifest], [[], 300, false]);
  await rejects(() => check({}), /expected manifest\.json or parquet files/);
});
