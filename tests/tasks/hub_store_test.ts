import { deepEqual, equal, ok } from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CacheStore } from "../../tasks/hub_store.ts";
import { hashOf, noise } from "../core/hub_server.ts";
import { scratchFolder } from "./run_task.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const FOLDER = "models--owner--name";

Deno.test({
  name:
    "CacheStore puts the files themselves into a snapshot where nothing can be linked",
  // To link takes the right to write everywhere.
  permissions: {
    read: "inherit",
    write: [Deno.env.get("TMPDIR") ?? "/tmp"],
    env: "inherit",
  },
  async fn() {
    using folder = scratchFolder();
    const repo = { type: "model", id: "owner/name" } as const;
    const store = new CacheStore(folder.path, repo, COMMIT);
    const bytes = noise(5000);
    const size = bytes.length;
    const files = ["a/x.json", "y.json"].map((path) => ({
      path,
      size,
      hash: hashOf(bytes),
    }));
    const part = await store.openPart(files[0]!);
    for (const [start, end] of [[3000, 5000], [0, 3000]] as const) {
      const writer = await part.openAt(start);
      await writer.write(bytes.subarray(start, end));
      await writer.sync();
      writer.close();
      await part.record({ start, end });
    }
    equal(await part.hash(), files[0]!.hash);
    await part.keep();
    for (let time = 0; time < 2; time++) {
      await store.link(files);
      for (const { path } of files) {
        const at = join(store.snapshot, path);
        ok(Deno.lstatSync(at).isFile);
        deepEqual(Deno.readFileSync(at), bytes);
      }
      ok(await store.has(files[0]!) && await store.has(files[1]!));
    }
    deepEqual([...Deno.readDirSync(join(folder.path, FOLDER, "blobs"))], []);
  },
});

Deno.test("CacheStore begins anew where the bytes are not those that the log speaks of", async () => {
  using folder = scratchFolder();
  const repo = { type: "model", id: "owner/name" } as const;
  const store = new CacheStore(folder.path, repo, COMMIT);
  const file = { path: "x", size: 5000, hash: "a".repeat(64) };
  const blob = join(folder.path, FOLDER, "blobs", file.hash);
  await store.openPart(file);
  Deno.writeTextFileSync(`${blob}.ranges.incomplete`, "0 4000\n");
  equal((await store.openPart(file)).done.length, 0);
  ok(!existsSync(`${blob}.ranges.incomplete`));
  Deno.writeFileSync(`${blob}.ocs.incomplete`, new Uint8Array(4000));
  Deno.writeTextFileSync(`${blob}.ranges.incomplete`, "0 4000\n40");
  deepEqual((await store.openPart(file)).done, [{ start: 0, end: 4000 }]);
  equal(await store.missingBytes(file), 1000);
});
