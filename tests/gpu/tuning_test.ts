import { deepEqual, equal } from "node:assert/strict";
import { Tuning, type TuningStore } from "../../gpu/mod.ts";
import { adapterIdentity } from "../../gpu/tuning.ts";

/** A store in memory. */
function memoryStore(json?: unknown): TuningStore & { json: unknown } {
  return {
    json,
    load(): Promise<unknown> {
      return Promise.resolve(this.json);
    },
    save(json): Promise<void> {
      this.json = structuredClone(json);
      return Promise.resolve();
    },
  };
}

Deno.test("Tuning keeps what it decides for its adapter, beside what others have", async () => {
  const store = memoryStore({ version: 2, adapters: { other: { a: 1 } } });
  const first = new Tuning("card");
  await first.attach(store, "on");
  equal(first.get("a"), undefined);
  equal(first.isWanted("a"), true);
  first.set("a", [2]);
  await first.save();
  deepEqual(store.json, {
    version: 2,
    adapters: { other: { a: 1 }, card: { a: [2] } },
  });
  const second = new Tuning("card");
  await second.attach(store, "on");
  equal(second.isWanted("a"), false);
  deepEqual(second.get("a"), [2]);
});

Deno.test("Tuning wants nothing and touches no store when it is off, and everything once when forced", async () => {
  const store = memoryStore({ version: 2, adapters: { card: { a: 1 } } });
  const off = new Tuning("card");
  await off.attach(store, "off");
  equal(off.get("a"), undefined);
  equal(off.isWanted("a"), false);
  off.set("b", 2);
  await off.save();
  deepEqual(store.json, { version: 2, adapters: { card: { a: 1 } } });
  const force = new Tuning("card");
  await force.attach(store, "force");
  equal(force.get("a"), 1, "until it is known anew");
  equal(force.isWanted("a"), true);
  force.set("a", 3);
  equal(force.isWanted("a"), false);
});

Deno.test("Tuning gives the decisions in use, and takes those of another process instead of its own", async () => {
  const store = memoryStore({
    version: 2,
    adapters: { card: { a: 1, idle: 5 } },
  });
  const tuning = new Tuning("card");
  await tuning.attach(store, "on");
  tuning.get("a");
  tuning.set("b", 2);
  deepEqual(tuning.decisions(), { a: 1, b: 2 });
  tuning.use({ a: 7 });
  deepEqual(tuning.decisions(), { a: 7, b: 2 });
});

Deno.test("Tuning ignores a store of another form", async () => {
  const damaged = [
    undefined,
    null,
    7,
    [],
    { version: 1, adapters: { card: { a: 1 } } },
    { version: 2, adapters: [] },
    { version: 2, adapters: { card: 3 } },
  ];
  for (const json of damaged) {
    const store = memoryStore(json);
    const tuning = new Tuning("card");
    await tuning.attach(store, "on");
    equal(tuning.isEmpty, true, JSON.stringify(json));
    tuning.set("a", 1);
    await tuning.save();
    deepEqual(store.json, { version: 2, adapters: { card: { a: 1 } } });
  }
});

Deno.test("Tuning.use() forgets what a store gave and nobody used, and keeps nothing of it in the store", async () => {
  const store = memoryStore({
    version: 2,
    adapters: { card: { used: 1, idle: 5 } },
  });
  const tuning = new Tuning("card");
  await tuning.attach(store, "on");
  tuning.get("used");
  tuning.use({ foreign: 9, nothing: null });
  equal(tuning.get("idle"), undefined, "the other process did not know it");
  deepEqual(tuning.decisions(), { foreign: 9, used: 1 });
  equal(tuning.isWanted("foreign"), false);
  tuning.set("found", 3);
  await tuning.save();
  deepEqual(store.json, {
    version: 2,
    adapters: { card: { used: 1, idle: 5, found: 3 } },
  });
  for (const other of [undefined, null, "fast", 7, [1]]) tuning.use(other);
  deepEqual(tuning.decisions(), { foreign: 9, found: 3, used: 1 });
});

Deno.test("Tuning.save() leaves newer timings of other processes alone, and writes nothing where it found nothing", async () => {
  const store = memoryStore({ version: 2, adapters: { card: { a: 1 } } });
  const tuning = new Tuning("card");
  await tuning.attach(store, "on");
  tuning.get("a");
  store.json = { version: 2, adapters: { card: { a: 2 } } };
  const newer = store.json;
  await tuning.save();
  equal(store.json, newer, "not written");
  tuning.set("b", 3);
  await tuning.save();
  deepEqual(store.json, { version: 2, adapters: { card: { a: 2, b: 3 } } });
});

Deno.test("Tuning goes on without a store that fails", async () => {
  const failing: TuningStore = {
    load: () => Promise.reject(new Error("unreadable")),
    save: () => Promise.reject(new Error("full")),
  };
  const tuning = new Tuning("card");
  await tuning.attach(failing, "on");
  tuning.set("a", 1);
  await tuning.save();
  equal(tuning.get("a"), 1);
});

Deno.test("adapterIdentity() tells adapters and drivers apart, as far as they say", () => {
  const info = { vendor: "4318", architecture: "", device: "8704" };
  equal(
    adapterIdentity({ ...info, description: "Card (driver 1)" }),
    "Card (driver 1), 4318, 8704",
  );
  equal(
    adapterIdentity({
      vendor: "",
      architecture: "",
      device: "",
      description: "",
    }),
    "unnamed adapter",
  );
});
