import { deepEqual, equal } from "node:assert/strict";
import { Tuning, type TuningStore } from "../../gpu/mod.ts";

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
  const store = memoryStore({ version: 1, adapters: { other: { a: 1 } } });
  const first = new Tuning("card");
  await first.attach(store, "on");
  equal(first.get("a"), undefined);
  equal(first.isWanted("a"), true);
  first.set("a", [2]);
  await first.save();
  deepEqual(store.json, {
    version: 1,
    adapters: { other: { a: 1 }, card: { a: [2] } },
  });
  const second = new Tuning("card");
  await second.attach(store, "on");
  equal(second.isWanted("a"), false);
  deepEqual(second.get("a"), [2]);
});

Deno.test("Tuning wants nothing and touches no store when it is off, and everything once when forced", async () => {
  const store = memoryStore({ version: 1, adapters: { card: { a: 1 } } });
  const off = new Tuning("card");
  await off.attach(store, "off");
  equal(off.get("a"), undefined);
  equal(off.isWanted("a"), false);
  off.set("b", 2);
  await off.save();
  deepEqual(store.json, { version: 1, adapters: { card: { a: 1 } } });
  const force = new Tuning("card");
  await force.attach(store, "force");
  equal(force.isWanted("a"), true);
  force.set("a", 3);
  equal(force.isWanted("a"), false);
});

Deno.test("Tuning gives the decisions in use, and takes those of another process instead of its own", async () => {
  const store = memoryStore({
    version: 1,
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
    { version: 2, adapters: { card: { a: 1 } } },
    { version: 1, adapters: [] },
    { version: 1, adapters: { card: 3 } },
  ];
  for (const json of damaged) {
    const store = memoryStore(json);
    const tuning = new Tuning("card");
    await tuning.attach(store, "on");
    equal(tuning.isEmpty, true, JSON.stringify(json));
    tuning.set("a", 1);
    await tuning.save();
    deepEqual(store.json, { version: 1, adapters: { card: { a: 1 } } });
  }
});
