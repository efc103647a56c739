import assert from "node:assert/strict";
import { type PickleNames, readPickle } from "../../core/pickle.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { latin1 } from "./zip_for_tests.ts";

/** Names that are known: `m f`, which says what it was called with, and `m n`, which cannot be called. */
function names(calls: unknown[][] = []): PickleNames {
  return {
    find(name) {
      if (name === "m n") return { name };
      if (name !== "m f") return undefined;
      return { name, call: (args) => calls.push([...args]) };
    },
    persistent: (id) => ({ id }),
  };
}

function read(pickle: string, calls?: unknown[][]): unknown {
  return readPickle("a.pkl", latin1(pickle), names(calls));
}

Deno.test("readPickle() reads what each protocol writes of dicts, lists, tuples and constants", () => {
  const value = new Map<unknown, unknown>([
    ["a", [1, -2, 300, 70000, 2n ** 70n, -(2n ** 70n)]],
    ["b", [true, false, null, 0.5]],
    ["c", new Map([[7, [1, 2, 3]]])],
  ]);
  // pickle.dumps(value, 2) with the tuple for a list; the others differ from it as the protocols do.
  const two =
    "\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00" +
    "\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xc0e" +
    "X\x01\x00\x00\x00bq\x03]q\x04(\x88\x89NG?\xe0\x00\x00\x00\x00\x00\x00e" +
    "X\x01\x00\x00\x00cq\x05}q\x06K\x07K\x01K\x02K\x03\x87q\x07su.";
  const four = two.replace("\x80\x02", "\x80\x04\x95" + "\0".repeat(8))
    .replaceAll(/X(.)\0\0\0/g, "\x8c$1").replaceAll(/q./gs, "\x94");
  const one = two.slice(2).replaceAll("\x88", "I01\n")
    .replaceAll("\x89", "I00\n").replace(
      "K\x01K\x02K\x03\x87",
      "(K\x01K\x02K\x03t",
    )
    .replace("\x8a\x09\0\0\0\0\0\0\0\0@", "L1180591620717411303424L\n")
    .replace("\x8a\x09\0\0\0\0\0\0\0\0\xc0", "L-1180591620717411303424L\n");
  for (const pickle of [one, two, four]) {
    assert.deepEqual(read(pickle), value);
  }
  const itself = read("]2a.") as unknown[];
  assert.equal(itself[0], itself);
  assert.deepEqual(read("K\x02K\x01\x86."), [2, 1]);
  assert.deepEqual(read("B\x02\0\0\0\xff\x01."), Uint8Array.of(255, 1));
  assert.deepEqual(read("(lK\x01a."), [1]);
  assert.deepEqual(read("(K\x01K\x02d."), new Map([[1, 2]]));
  assert.deepEqual(read("K\x01K\x020(K\x031."), 1);
  assert.deepEqual(read("K\x05Q."), { id: 5 });
});

Deno.test("readPickle() takes a key of an object's own members for a key", () => {
  const value = read("}\x8c\x09__proto__}\x8c\x01aK\x01ss.");
  assert.ok(value instanceof Map);
  assert.deepEqual(value.get("__proto__"), new Map([["a", 1]]));
  assert.equal(({} as Record<string, unknown>)["a"], undefined);
});

Deno.test("readPickle() calls only what it was given, with what the pickle has", () => {
  const calls: unknown[][] = [];
  assert.equal(read("cm\nf\n(K\x01NtR.", calls), 1);
  assert.equal(read("\x8c\x01m\x8c\x01f\x93)R.", calls), 2);
  assert.deepEqual(calls, [[1, null], []]);
});

Deno.test("readPickle() refuses every name it was not given, and says which, before anything is called", async () => {
  const calls: unknown[][] = [];
  const hostile: [string, RegExp][] = [
    [
      "cos\nsystem\n(\x8c\x02lstR.",
      /got the name "os system": nothing was run/,
    ],
    ["\x8c\x05posix\x8c\x06system\x93.", /got the name "posix system"/],
    ["c__builtin__\neval\n.", /got the name "__builtin__ eval"/],
    ["cm\nf.g\n.", /got the name "m f.g"/],
    ["cconstructor\n__proto__\n.", /got the name "constructor __proto__"/],
    [`c${"x".repeat(300)}\nf\n.`, /got the name "x{77}\.\.\."/],
  ];
  for (const [pickle, pattern] of hostile) {
    await rejectsInOneLine(() => read(pickle, calls), pattern);
  }
  assert.deepEqual(calls, []);
});

Deno.test("readPickle() refuses calls of anything but a name, and attributes of anything but a dict", async () => {
  const hostile: [string, RegExp][] = [
    ["cm\nn\n)R.", /expected a name that can be called, and a tuple/],
    ["K\x01)R.", /expected a name that can be called/],
    ["\x8c\x03m f)R.", /expected a name that can be called/],
    ["cm\nf\n]R.", /expected a name that can be called, and a tuple/],
    ["]}b.", /expected an ordered dict to set attributes of/],
    ["cm\nf\n}b.", /expected an ordered dict to set attributes of/],
    ["}K\x01b.", /expected an ordered dict to set attributes of/],
    ["\x8c\x01mK\x01\x93.", /expected a module and a name/],
  ];
  for (const [pickle, pattern] of hostile) {
    await rejectsInOneLine(
      () => read(pickle),
      new RegExp(`^TypeError: Cannot read "a.pkl": ${pattern.source}`),
    );
  }
});

Deno.test("readPickle() refuses steps that weights do without", async () => {
  // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1, EXT2, EXT4, PERSID, sets, buffers, and the texts of protocol 0.
  const steps =
    "iox\x81\x92\x82\x83\x84P\x8f\x90\x91\x96\x97\x98STUVFgp\x8b\x8d\x8e~";
  for (const step of steps) {
    await rejectsInOneLine(
      () => read(`(cm\nf\n)${step}os\nsystem\n.`),
      /^SyntaxError: .*got the step 0x[0-9a-f]{2}, which weights do without/,
    );
  }
});

Deno.test("readPickle() refuses a pickle that is cut off anywhere, goes on behind its end, or takes what is not there", async () => {
  const whole = "\x80\x02}(X\x01\0\0\0acm\nf\n(K\x01M\x05\0\x8a\x02\x01\x02G" +
    "\0".repeat(8) + "tRu.";
  read(whole);
  for (let n = 0; n < whole.length; n++) {
    await rejectsInOneLine(
      () => read(whole.slice(0, n)),
      /^SyntaxError: Cannot read "a.pkl": expected a whole pickle: got a part/,
    );
  }
  const broken: [string, RegExp][] = [
    [whole + "N.", /got 2 bytes behind it/],
    [".", /expected one value at its end/],
    ["(.", /expected one value at its end/],
    ["NN.", /expected one value at its end/],
    ["\x80\x06N.", /got a protocol above 5/],
    ["0.", /expected a value to drop/],
    ["a.", /expected a value/],
    ["](a.", /expected a value/],
    ["Na.", /expected a value/],
    ["NNa.", /expected a list to append to/],
    [")Na.", /expected a list to append to/],
    ["t.", /expected a mark/],
    ["N1.", /expected a mark/],
    ["}(Nu.", /expected a dict, and keys with values/],
    ["]NNs.", /expected a dict/],
    ["}]Ns.", /expected a key that can be hashed/],
    ["h\x05.", /expected a value 5 before/],
    ["q\x00.", /expected a value/],
    ["K\x01(\x86.", /expected a value/],
    ["I1e3\n.", /got the number "1e3"/],
    [`L${"9".repeat(40)}L\n.`, /got the number "9{40}"/],
    ["\x8a\x40" + "\x01".repeat(64) + ".", /got a number of 64 bytes/],
    ["X\xff\xff\xff\xffa.", /got a part of one/],
    ["B\xff\xff\xff\x7fa.", /got a part of one/],
  ];
  for (const [pickle, pattern] of broken) {
    await rejectsInOneLine(() => read(pickle), pattern);
  }
});

Deno.test("readPickle() takes bombs for what they weigh: doubling lists, deep nesting, marks, memos and huge numbers of them", async () => {
  // Each list has the one before twice: 2^1000 leaves, if one walked them.
  const doubled = "]h\x00ah\x00aq\x00".repeat(1000);
  assert.ok(Array.isArray(read(`(]q\x00${doubled}t.`)));
  const nested = "\x85".repeat(10 ** 5);
  assert.ok(Array.isArray(read(`]${nested}.`)));
  await rejectsInOneLine(() => read("(".repeat(10 ** 5) + "."), /one value/);
  assert.equal(read("Nr\xff\xff\xff\xff0j\xff\xff\xff\xff."), null);
  const huge = new Uint8Array(2 ** 20 + 1);
  await rejectsInOneLine(
    () => readPickle("a.pkl", huge, names()),
    /^RangeError: .*expected a pickle of at most 1048576 bytes: got 1048577/,
  );
});
