import assert from "node:assert/strict";
import { join } from "node:path";
import { readText } from "../../core/source.ts";
import { localStore, tryLockFile } from "../../tasks/local_store.ts";

/** Runs a test in a folder of its own. */
async function inFolder(test: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await test(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

/** Names of everything in a folder. */
const names = (path: string): string[] =>
  Array.from(Deno.readDirSync(path), (entry) => entry.name).sort();

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return new Uint8Array(digest).toHex();
}

Deno.test("localStore() reads nothing of a folder that is not there, and creates it by the first write", async () => {
  await inFolder(async (path) => {
    const out = join(path, "deep/out");
    const store = await localStore(out);
    assert.equal(await store.has("x"), false);
    assert.deepEqual(await store.list(), []);
    await store.remove("x");
    await assert.rejects(store.open("x"), /^Error: Cannot open "x": no such/);
    assert.deepEqual(names(path), []);
    await store.write("x", "bee");
    await store.write("sub/y", "sea");
    assert.equal(await readText(await store.open("x")), "bee");
    assert.deepEqual(await store.list(), ["x"]);
    await store.remove("x");
    await store.remove("sub/y/z");
    assert.deepEqual(await store.list(), []);
  });
});

Deno.test("localStore() gives the length and the hash when text, bytes or chunks are written", async () => {
  await inFolder(async (path) => {
    const store = await localStore(path);
    // Longer than what is written at a time.
    const bytes = Uint8Array.from({ length: 9_000_001 }, (_, i) => i % 251);
    const expected = { bytes: bytes.length, sha256: await sha256(bytes) };
    function* chunks(): Generator<Uint8Array> {
      for (let at = 0; at < bytes.length; at += 4_300_000) {
        yield bytes.subarray(at, at + 4_300_000);
      }
    }
    assert.deepEqual(await store.write("x", bytes), expected);
    assert.deepEqual(await store.write("x", chunks()), expected);
    assert.deepEqual(await Deno.readFile(join(path, "x")), bytes);
    assert.deepEqual(await store.write("x", "é"), {
      bytes: 2,
      sha256: await sha256(Uint8Array.of(0xc3, 0xa9)),
    });
  });
});

Deno.test("localStore() keeps the old file and leaves nothing else when the content fails", async () => {
  await inFolder(async (path) => {
    const store = await localStore(path);
    await store.write("x", "old");
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(new Uint8Array(5_000_000));
      throw new Error("no more");
    }
    await assert.rejects(store.write("x", failing()), { message: "no more" });
    assert.equal(await Deno.readTextFile(join(path, "x")), "old");
    assert.deepEqual(names(path), ["x"]);
  });
});

Deno.test("localStore() refuses a path that is a file, and names that lead out of the folder", async () => {
  await inFolder(async (path) => {
    const file = join(path, "x");
    await Deno.writeTextFile(file, "");
    await assert.rejects(localStore(file), {
      message:
        `Cannot write to "${file}": expected a folder: got a file: choose another folder`,
    });
    const store = await localStore(path);
    for (const name of ["../y", "/y", "", "a/../../y"]) {
      await assert.rejects(store.write(name, ""), { name: "RangeError" });
      await assert.rejects(store.remove(name), { name: "RangeError" });
    }
    assert.deepEqual(names(path), ["x"]);
  });
});

Deno.test("localStore() refuses a lock while it is held, and leaves nothing of it after", async () => {
  await inFolder(async (path) => {
    const store = await localStore(path);
    {
      await using _ = await store.lock("all");
      await using _other = await store.lock("000-of-002");
      await assert.rejects((await localStore(path)).lock("all"), {
        message:
          `Cannot write to "${path}": process ${Deno.pid} on ${Deno.hostname()} is writing there: wait for it to end, or choose another folder`,
      });
    }
    await using _ = await store.lock("all");
    assert.deepEqual(names(path), [".all.lock"]);
  });
});

Deno.test("tryLockFile() lets one in at a time when many come and go", async () => {
  await inFolder(async (path) => {
    let nInside = 0;
    let nEntered = 0;
    // Whoever leaves removes the file that others have opened and not locked yet.
    const comeAndGo = async (): Promise<void> => {
      for (let i = 0; i < 60; i++) {
        await using lock = await tryLockFile(join(path, ".lock"));
        if (!lock) continue;
        assert.equal(nInside++, 0);
        nEntered++;
        await Deno.stat(path);
        nInside--;
      }
    };
    await Promise.all(Array.from({ length: 8 }, comeAndGo));
    assert.ok(nEntered > 0);
    assert.deepEqual(names(path), []);
  });
});

/** A process that holds a lock until it is killed. */
const HOLDER = `
  import { localStore, tryLockFile } from ${
  JSON.stringify(new URL("../../tasks/local_store.ts", import.meta.url).href)
};
  await (await localStore(Deno.args[0])).lock("all");
  console.log("held");
  setInterval(() => {}, 1000);
`;

Deno.test("localStore() gives a lock when the process that held it was killed", async () => {
  await inFolder(async (path) => {
    const script = join(path, "holder.ts");
    const out = join(path, "out");
    await Deno.writeTextFile(script, HOLDER);
    const holder = new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--no-check", `--allow-read=${path}`],
        ...[`--allow-write=${path}`, "--allow-sys=hostname", script, out],
      ],
      stdout: "piped",
    }).spawn();
    const reader = holder.stdout.getReader();
    const { value } = await reader.read();
    assert.equal(new TextDecoder().decode(value).trim(), "held");
    const store = await localStore(out);
    await assert.rejects(
      store.lock("all"),
      new RegExp(`: process ${holder.pid} on .+ is writing there`),
    );
    holder.kill("SIGKILL");
    await holder.status;
    await reader.cancel();
    assert.deepEqual(names(out), [".all.lock"]);
    await using _ = await store.lock("all");
  });
});
