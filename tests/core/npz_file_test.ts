import assert from "node:assert/strict";
import { NpzFile } from "../../core/npz_file.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { memorySource } from "../../core/source.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { formatFolder } from "./sae_references.ts";
import { joined, latin1, zip } from "./zip_for_tests.ts";

/** An array as numpy.save writes it, its header as given. */
function npy(header: string, bytes: Uint8Array, version = 1): Uint8Array {
  const text = `${header}\n`;
  const length = version === 1
    ? [text.length & 255, text.length >> 8]
    : [text.length & 255, text.length >> 8, 0, 0];
  return joined(
    latin1("\x93NUMPY"),
    [version, 0],
    length,
    latin1(text),
    bytes,
  );
}

function npz(array: Uint8Array, name = "a.npy", deflate = false): NpzSource {
  return memorySource("p.npz", zip([{ name, bytes: array, deflate }]));
}
type NpzSource = ReturnType<typeof memorySource>;

const FOUR = new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer);

Deno.test("NpzFile reads headers of every version, and arrays by range", async () => {
  const header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }";
  for (const version of [1, 2, 3]) {
    for (const deflate of [false, true]) {
      const file = await NpzFile.open(
        npz(npy(header, FOUR, version), "a.npy", deflate),
      );
      const { dtype, shape, isTransposed } = file.info("a");
      assert.deepEqual([dtype, shape, isTransposed], [
        "F32",
        [2, 2],
        undefined,
      ]);
      assert.deepEqual(await file.read("a", 4, 12), FOUR.slice(4, 12));
      await rejectsInOneLine(() => file.read("a", 4, 20), /inside \[0, 16\)/);
      await rejectsInOneLine(() => file.read("b", 0, 4), /no tensor "b"/);
    }
  }
  const turned = await NpzFile.open(
    npz(npy(header.replace("False", "True"), FOUR)),
  );
  assert.equal(turned.info("a").isTransposed, true);
  const vector = "{'descr': '<f2', 'fortran_order': True, 'shape': (8,), }";
  const flat = await NpzFile.open(npz(npy(vector, FOUR)));
  assert.deepEqual(flat.info("a").shape, [8]);
  assert.equal(flat.info("a").isTransposed, undefined);
});

Deno.test("NpzFile.open() refuses objects, other dtypes and headers that are not as NumPy writes them", async () => {
  const header = (
    { descr = "'<f4'", order = "False", shape = "(4,)", end = ", }" } = {},
  ) => `{'descr': ${descr}, 'fortran_order': ${order}, 'shape': ${shape}${end}`;
  const cases: [string, RegExp][] = [
    [header({ descr: "'|O'" }), /^TypeError: .*"\|O", which are objects and/],
    [header({ descr: "'>f4'" }), /^TypeError: .*got dtype ">f4": save it as/],
    [header({ descr: "'<U7'" }), /^TypeError: .*got dtype "<U7"/],
    [header({ descr: "'|V2'" }), /^TypeError: .*got dtype "|V2"/],
    [header({ descr: "'constructor'" }), /^TypeError: .*"constructor"/],
    [header({ descr: "[('x', '<f4')]" }), /^SyntaxError: .*of one dtype/],
    [header({ order: "0" }), /^SyntaxError: .*of one dtype/],
    [header({ shape: "(2+2,)" }), /^SyntaxError: .*of one dtype/],
    [header({ shape: "(-4,)" }), /^SyntaxError: .*of one dtype/],
    [header({ end: ", 'more': 1, }" }), /^SyntaxError: .*of one dtype/],
    ["__import__('os').system('true')", /^SyntaxError: .*of one dtype/],
    [header({ shape: "(5,)" }), /^RangeError: .*got shape \[5\] of F32/],
    [header({ shape: "(3,)" }), /^RangeError: .*got shape \[3\]/],
    [
      header({ shape: `(${"9".repeat(15)}, ${"9".repeat(15)})` }),
      /^RangeError: .*got shape/,
    ],
    [
      header({ order: "True", shape: "(1, 2, 2)" }),
      /^RangeError: .*in C order: got shape \[1,2,2\]/,
    ],
  ];
  for (const [text, pattern] of cases) {
    await rejectsInOneLine(() => NpzFile.open(npz(npy(text, FOUR))), pattern);
  }
  await rejectsInOneLine(
    () => NpzFile.open(npz(FOUR)),
    /^SyntaxError: .*array "a": .*got something else/,
  );
  await rejectsInOneLine(
    () => NpzFile.open(npz(npy(header(), FOUR).slice(0, 30))),
    /^SyntaxError: /,
  );
  await rejectsInOneLine(
    () => NpzFile.open(npz(npy(header(), FOUR), "data.pkl")),
    /^SyntaxError: .*arrays that end in .npy: got "data.pkl"/,
  );
});

Deno.test("SaeFile.open() refuses npz files with objects or big-endian numbers as NumPy writes them", async () => {
  const folder = formatFolder("npz");
  await rejectsInOneLine(
    () => SaeFile.open(folder, { file: "objects.npz" }),
    /^TypeError: .*objects.npz": array "w_enc": .*which are objects/,
  );
  await rejectsInOneLine(
    () => SaeFile.open(folder, { file: "big-endian.npz" }),
    /^TypeError: .*big-endian.npz": array "b_dec": .*">f4"/,
  );
});
