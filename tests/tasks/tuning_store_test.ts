import { deepEqual, equal } from "node:assert/strict";
import { join } from "node:path";
import { fileStore, tuningFile } from "../../tasks/tuning_store.ts";

Deno.test("tuningFile() is in the user's cache folder, where there is one", () => {
  const env = (values: Record<string, string>) => (name: string) =>
    values[name];
  const end = join("open-concept-steering", "tuning.json");
  const home = env({ HOME: "/home/ada" });
  equal(tuningFile(home, "linux"), join("/home/ada/.cache", end));
  equal(tuningFile(home, "darwin"), join("/home/ada/Library/Caches", end));
  const own = env({ HOME: "/home/ada", XDG_CACHE_HOME: "/fast" });
  equal(tuningFile(own, "linux"), join("/fast", end));
  const relative = env({ HOME: "/home/ada", XDG_CACHE_HOME: "fast" });
  equal(tuningFile(relative, "linux"), join("/home/ada/.cache", end));
  const windows = env({ LOCALAPPDATA: "/Users/ada/Local" });
  equal(tuningFile(windows, "windows"), join("/Users/ada/Local", end));
  equal(tuningFile(env({}), "linux"), undefined);
});

Deno.test("fileStore() keeps JSON, leaves no other file, and forgets in silence what it cannot keep", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "a", "tuning.json");
    const store = fileStore(path);
    equal(await store.load(), undefined);
    await store.save({ a: 1 });
    deepEqual(await store.load(), { a: 1 });
    deepEqual(
      [...Deno.readDirSync(join(folder, "a"))].map(({ name }) => name),
      [
        "tuning.json",
      ],
    );
    await Deno.writeTextFile(path, "{ damaged");
    equal(await store.load(), undefined);
    // A file stands where a folder is needed.
    const obstructed = fileStore(join(path, "tuning.json"));
    await obstructed.save({ a: 1 });
    equal(await obstructed.load(), undefined);
    await fileStore(undefined).save({});
    equal(await fileStore(undefined).load(), undefined);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test(
  "fileStore() neither reads nor writes, nor asks, where it is not allowed to",
  {
    permissions: { read: "inherit", env: false, write: false },
  },
  async () => {
    equal(tuningFile(), undefined, "no variable may be read");
    const path = join(import.meta.dirname!, "tuning_store_test.json");
    const store = fileStore(path);
    await store.save({ a: 1 });
    equal(await store.load(), undefined);
  },
);
