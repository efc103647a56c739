import assert from "node:assert/strict";
import { join } from "node:path";
import {
  claimOutputFolder,
  directory,
  fileError,
  fileSource,
  fingerprint,
  readManifest,
  writeAtomic,
  writeManifest,
} from "../../core/files.ts";
import { readText } from "../../core/source.ts";

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

Deno.test("fileSource() reads ranges at the same time", async () => {
  await inFolder(async (path) => {
    const bytes = Uint8Array.from({ length: 4096 }, (_, i) => i % 251);
    await Deno.writeFile(join(path, "x"), bytes);
    using source = await fileSource(join(path, "x"));
    assert.equal(source.byteLength, 4096);
    const starts = [4000, 0, 17, 2048];
    const reads = starts.map((start) => source.read(start, start + 9));
    for (const [i, read] of (await Promise.all(reads)).entries()) {
      assert.deepEqual(read, bytes.slice(starts[i]!, starts[i]! + 9));
    }
    await assert.rejects(source.read(4090, 4097), { name: "RangeError" });
    assert.equal((await source.read(4090, 4096)).length, 6);
  });
});

Deno.test("fileSource() refuses a short read when the file shrinks", async () => {
  await inFolder(async (path) => {
    const file = join(path, "x");
    await Deno.writeFile(file, new Uint8Array(100));
    using source = await fileSource(file);
    await Deno.truncate(file, 10);
    await assert.rejects(source.read(5, 20), {
      name: "RangeError",
      message:
        `Cannot read bytes [5, 20) of "${file}": the file ended at 10, so it was changed meanwhile`,
    });
  });
});

Deno.test("fileSource() names the path when there is no such file", async () => {
  await inFolder(async (path) => {
    await assert.rejects(fileSource(join(path, "none")), {
      message: `Cannot open "${
        join(path, "none")
      }": no such file or folder: check the path`,
    });
    await assert.rejects(fileSource(path), /expected a file: got a folder$/);
  });
});

Deno.test("directory() finds, lists and opens files and stays inside", async () => {
  await inFolder(async (path) => {
    await Deno.mkdir(join(path, "sub"));
    await Deno.writeTextFile(join(path, "b.txt"), "bee");
    await Deno.writeTextFile(join(path, "a.txt"), "");
    await Deno.writeTextFile(join(path, "sub/c.txt"), "sea");
    const folder = directory(path);
    assert.deepEqual(await folder.list(), ["a.txt", "b.txt"]);
    await Deno.mkdir(join(path, ".hidden"));
    await Deno.writeTextFile(join(path, ".hidden/d.txt"), "dee");
    // Deno links only for those who may write everywhere.
    const link = ["-c", "ln -s .. sub/round"];
    await new Deno.Command("/bin/sh", { args: link, cwd: path }).output();
    assert.ok((await Deno.stat(join(path, "sub/round"))).isDirectory);
    const all = await folder.list({ deep: true });
    assert.deepEqual(all, ["a.txt", "b.txt", "sub/c.txt"]);
    assert.equal(await folder.has("sub"), false);
    assert.equal(await folder.has("b.txt/x"), false);
    assert.equal(await readText(await folder.open("b.txt")), "bee");
    assert.equal(await readText(await folder.open("sub/c.txt")), "sea");
    await assert.rejects(folder.open("c.txt"), {
      message:
        `Cannot open "c.txt": no such file in "${path}": put it there, or name another folder`,
    });
    const outside = ["../x", "/etc/hosts", "", ".", "sub/../../x", "a\\b"];
    for (const file of outside) {
      await assert.rejects(folder.open(file), { name: "RangeError" });
      await assert.rejects(folder.has(file), { name: "RangeError" });
    }
  });
});

Deno.test("directory() says when there is no folder", async () => {
  await inFolder(async (path) => {
    assert.throws(() => directory(join(path, "none")), {
      message: `Cannot open folder "${
        join(path, "none")
      }": no such file or folder: check the path`,
    });
    await Deno.writeTextFile(join(path, "x"), "");
    assert.throws(
      () => directory(join(path, "x")),
      /expected a folder: got a file$/,
    );
  });
});

Deno.test("writeAtomic() writes text, bytes and chunks and leaves nothing else", async () => {
  await inFolder(async (path) => {
    const file = join(path, "x");
    async function* chunks(): AsyncGenerator<Uint8Array> {
      yield Uint8Array.of(1, 2);
      yield await Promise.resolve(Uint8Array.of(3));
    }
    await writeAtomic(file, "é");
    assert.deepEqual([...await Deno.readFile(file)], [0xc3, 0xa9]);
    await writeAtomic(file, Uint8Array.of(7));
    assert.deepEqual([...await Deno.readFile(file)], [7]);
    await writeAtomic(file, chunks());
    assert.deepEqual([...await Deno.readFile(file)], [1, 2, 3]);
    assert.deepEqual(names(path), ["x"]);
  });
});

Deno.test("writeAtomic() keeps the old file and removes its own when it fails", async () => {
  await inFolder(async (path) => {
    const file = join(path, "x");
    await Deno.writeTextFile(file, "old");
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(Uint8Array.of(1));
      throw new Error("no more");
    }
    await assert.rejects(writeAtomic(file, failing()), { message: "no more" });
    assert.equal(await Deno.readTextFile(file), "old");
    assert.deepEqual(names(path), ["x"]);
    await Deno.mkdir(join(path, "folder/inside"), { recursive: true });
    await assert.rejects(writeAtomic(join(path, "folder"), "x"), {
      message: /^Cannot write ".+folder": .+$/,
    });
    assert.deepEqual(names(path), ["folder", "x"]);
    await assert.rejects(writeAtomic(join(path, "none/x"), "x"), {
      message: `Cannot write "${
        join(path, "none/x")
      }": no such file or folder: check the path`,
    });
  });
});

Deno.test("fileError() says what to do when the disk is full", () => {
  const full = new Error("No space left on device (os error 28)");
  assert.equal(
    fileError("write", "a/x", Object.assign(full, { code: "ENOSPC" })).message,
    'Cannot write "a/x": No space left on device (os error 28): free some space and run the same command again',
  );
});

Deno.test("claimOutputFolder() creates a folder and resumes the same run", async () => {
  await inFolder(async (path) => {
    const run = join(path, "deep/run");
    assert.equal(await claimOutputFolder(run, "sae", "f1"), null);
    const claimed = { kind: "sae", fingerprint: "f1" };
    assert.deepEqual(await claimOutputFolder(run, "sae", "f1"), claimed);
    await writeManifest(run, { ...claimed, step: 3 });
    await Deno.writeTextFile(join(run, "shard"), "x");
    assert.deepEqual(await claimOutputFolder(run, "sae", "f1"), {
      ...claimed,
      step: 3,
    });
    assert.deepEqual(await readManifest(run), { ...claimed, step: 3 });
  });
});

Deno.test("claimOutputFolder() takes an empty folder, and one with only a killed write", async () => {
  await inFolder(async (path) => {
    const leftover = join(path, ".manifest.json.0a1b2c3d.tmp");
    await Deno.writeTextFile(leftover, "{");
    assert.equal(await claimOutputFolder(path, "sae", "f1"), null);
    assert.deepEqual(names(path), ["manifest.json"]);
    await Deno.writeTextFile(leftover, "{");
    await assert.rejects(claimOutputFolder(path, "sae", "f2"));
    assert.deepEqual(names(path), [
      ".manifest.json.0a1b2c3d.tmp",
      "manifest.json",
    ]);
    assert.ok(await claimOutputFolder(path, "sae", "f1"));
    assert.deepEqual(names(path), ["manifest.json"]);
  });
});

Deno.test("claimOutputFolder() refuses another run and other files, and writes nothing", async () => {
  await inFolder(async (path) => {
    const run = join(path, "run");
    await claimOutputFolder(run, "sae", "f1");
    const refused = async (target: string, got: string): Promise<void> => {
      const before = [names(path), names(run)];
      await assert.rejects(claimOutputFolder(target, "residuals", "f2"), {
        message:
          `Cannot write to "${target}": expected an empty folder or this residuals run: got ${got}: choose another folder with --out`,
      });
      assert.deepEqual([names(path), names(run)], before);
    };
    await refused(run, "a sae run");
    await writeManifest(run, { kind: "residuals", fingerprint: "f1" });
    await refused(run, "a residuals run of another configuration");
    await refused(path, 'other files ("run")');
    await refused(join(run, "manifest.json"), "a file");
    await Deno.writeTextFile(join(run, "manifest.json"), '{"kind":1}');
    await assert.rejects(claimOutputFolder(run, "sae", "f1"), {
      name: "SyntaxError",
      message: /manifest.json": expected an object with the texts/,
    });
  });
});

Deno.test("fingerprint() depends on the values, not on the order of keys", async () => {
  const a = await fingerprint({ lr: 1, sizes: [1, 2], nested: { x: 1, y: 2 } });
  const b = await fingerprint({ nested: { y: 2, x: 1 }, sizes: [1, 2], lr: 1 });
  assert.equal(a, b);
  assert.match(a, /^[0-9a-f]{16}$/);
  assert.notEqual(a, await fingerprint({ lr: 1, sizes: [2, 1], nested: {} }));
});
