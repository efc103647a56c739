import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import {
  openCheckpoint,
  Safetensors,
  safetensorsChunks,
  type TensorToWrite,
} from "../../core/safetensors.ts";
import { memoryFolder, memorySource, type Source } from "../../core/source.ts";

const HOSTILE = new URL("../fixtures/hostile-safetensors", import.meta.url);

/** A file with this header and n bytes of zeros after it. */
function withHeader(header: unknown, n: number): Uint8Array {
  const text = typeof header === "string" ? header : JSON.stringify(header);
  const json = new TextEncoder().encode(text);
  const file = new Uint8Array(8 + json.length + n);
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
  file.set(json, 8);
  return file;
}

async function written(
  tensors: TensorToWrite[],
  metadata?: Record<string, string>,
): Promise<Uint8Array> {
  const chunks = await Array.fromAsync(safetensorsChunks(tensors, metadata));
  return new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer());
}

const open = (file: Uint8Array): Promise<Safetensors> =>
  Safetensors.open(memorySource("t.safetensors", file));

const bytesOf = (values: ArrayBufferView<ArrayBuffer>): Uint8Array =>
  new Uint8Array(values.buffer);

const F32 = (name: string, ...values: number[]): TensorToWrite => ({
  name,
  dtype: "F32",
  shape: [values.length],
  bytes: bytesOf(Float32Array.from(values)),
});

/** What each hostile file must be refused for. */
const FAULTS: Record<string, RegExp> = {
  "dtype-unknown": /^TypeError: .*tensor "a": expected a dtype of .*"F42424?"/,
  "duplicate-key": /^SyntaxError: .*the key "a" twice/,
  "empty": /^RangeError: .*at least 8 bytes: got 0/,
  "header-length-huge": /^RangeError: .*header of at most 78 bytes: got 46116/,
  "header-longer-than-file": /^RangeError: .*at most 78 bytes: got 10000:/,
  "header-not-json": /^SyntaxError: .*header that is a JSON object/,
  "header-not-object": /^SyntaxError: .*got another JSON value/,
  "hole-between-tensors":
    /^RangeError: .*"b" must start at byte 136.*: got 144/,
  "offsets-overlap": /^RangeError: .*tensor "b"/,
  "offsets-past-end": /^RangeError: .*expected 135 bytes by its header: got 87/,
  "offsets-reversed": /^RangeError: .*start ≤ end: got \[16,0\]/,
  "shape-negative": /^RangeError: .*whole sizes ≥ 0: got \[-4\]/,
  "shape-overflow":
    /^RangeError: .*tensor "a": expected a shape of less than 2\^53/,
  "shape-size-mismatch":
    /^RangeError: .*span 20 bytes for F32\[5\]: got \[0,16\]/,
  "short": /^RangeError: .*at least 8 bytes: got 3/,
};

Deno.test("Safetensors.open() refuses every hostile file in one line, reading no more than is there", async () => {
  const folder = directory(HOSTILE.pathname);
  const files = await folder.list();
  assert.deepEqual(
    files.map((file) => file.replace(".safetensors", "")),
    Object.keys(FAULTS).sort(),
  );
  for (const file of files) {
    const source = await folder.open(file);
    let nRead = 0;
    const counted: Source = {
      ...source,
      read(start, end) {
        nRead += end - start;
        return source.read(start, end);
      },
    };
    const before = performance.now();
    await assert.rejects(Safetensors.open(counted), (error: Error) => {
      assert.match(`${error}`, FAULTS[file.replace(".safetensors", "")]!);
      assert.ok(error.message.startsWith(`Cannot read "${source.name}": `));
      assert.ok(!/[\n.]$|\n/.test(error.message), error.message);
      assert.ok(error.message.endsWith(": fetch it again"), error.message);
      return true;
    });
    assert.ok(performance.now() - before < 1000);
    assert.ok(nRead <= source.byteLength);
  }
});

Deno.test("Safetensors.open() refuses headers that JSON.parse would let pass", async () => {
  const tensor = { dtype: "F32", shape: [1], data_offsets: [0, 4] };
  const text = JSON.stringify(tensor);
  const refused: [unknown, RegExp][] = [
    [`{"a":${text},"\\u0061":${text}}`, /the key "a" twice/],
    [`{"a":${text}${" ".repeat(99)},  "a"${" ".repeat(99)}:${text}}`, /twice/],
    [`{"a":{"dtype":"F32",${text.slice(1)}}`, /the key "dtype" twice/],
    [`{"a":${"[".repeat(50_000)}${"]".repeat(50_000)}}`, /deeper nesting/],
    [`\ufeff{"a":${text}}`, /JSON object/],
    [{ a: { ...tensor, shape: [1.5] } }, /whole sizes/],
    [{ a: { ...tensor, shape: "1" } }, /whole sizes/],
    [{ a: { ...tensor, shape: [2 ** 53] } }, /whole sizes/],
    [
      { a: { ...tensor, shape: [2 ** 50, 2 ** 50, 0] } },
      /less than 2\^53 bytes/,
    ],
    [{ a: { ...tensor, data_offsets: [0, 4, 4] } }, /data_offsets/],
    [{ a: { ...tensor, data_offsets: [-4, 0] } }, /data_offsets/],
    [{ a: { ...tensor, dtype: "toString" } }, /expected a dtype of/],
    [{ a: { ...tensor, dtype: ["F32"] } }, /expected a dtype of/],
    [{ a: null }, /tensor "a": expected dtype, shape and data_offsets/],
    [{ "x\ny": 1 }, /tensor "x\\ny": expected/],
    [{ a: tensor, __metadata__: { n: 1 } }, /object of texts/],
    [{ a: tensor, __metadata__: ["n"] }, /object of texts/],
    [{ a: tensor, b: tensor }, /must start at byte \d+, where/],
    [{}, /expected \d+ bytes by its header/],
  ];
  for (const [header, message] of refused) {
    await assert.rejects(open(withHeader(header, 4)), (error: Error) => {
      assert.match(error.message, message);
      assert.ok(!error.message.includes("\n"));
      return true;
    });
  }
  assert.equal((await open(withHeader({ a: tensor }, 4))).tensors.size, 1);
});

Deno.test("Safetensors.open() takes keys named like members of objects, and strings with quotes", async () => {
  const tensor = (start: number) =>
    `{"dtype":"F32","shape":[1],"data_offsets":[${start},${start + 4}]}`;
  const file = withHeader(
    `{"__proto__":${tensor(0)},"constructor":${
      tensor(4)
    },"__metadata__":{"a\\"b,":"{\\"a\\",\\"a\\"}","c\\\\":"["}}`,
    8,
  );
  const { tensors, metadata } = await open(file);
  assert.deepEqual([...tensors.keys()], ["__proto__", "constructor"]);
  assert.deepEqual(metadata, { 'a"b,': '{"a","a"}', "c\\": "[" });
});

Deno.test("safetensorsChunks() round-trips every dtype, scalars, empty tensors and metadata", async () => {
  async function* halves(): AsyncGenerator<Uint8Array> {
    yield Uint8Array.of(0, 0x3c);
    yield await Promise.resolve(Uint8Array.of(0, 0xc0, 0, 0x7c));
  }
  const file = await written([
    { name: "u8", dtype: "U8", shape: [3], bytes: Uint8Array.of(1, 2, 255) },
    { name: "f16", dtype: "F16", shape: [3], bytes: halves },
    F32("f32", 1.5, -2, NaN),
    {
      name: "bf16",
      dtype: "BF16",
      shape: [2, 1],
      bytes: bytesOf(Uint16Array.of(0x3f80, 0xc040)),
    },
    {
      name: "f64",
      dtype: "F64",
      shape: [],
      bytes: bytesOf(Float64Array.of(Math.PI)),
    },
    {
      name: "i64",
      dtype: "I64",
      shape: [2],
      bytes: bytesOf(BigInt64Array.of(-5n, 7n)),
    },
    { name: "none", dtype: "F32", shape: [0, 4], bytes: new Uint8Array(0) },
  ], { hook: "resid_post[3]" });
  const opened = await open(file);
  assert.deepEqual(opened.metadata, { hook: "resid_post[3]" });
  assert.deepEqual(
    [...opened.tensors.keys()],
    ["f64", "i64", "f32", "none", "bf16", "f16", "u8"],
  );
  for (const { start, dtype } of opened.tensors.values()) {
    const alignment = { F64: 8, I64: 8, F32: 4, F16: 2, BF16: 2 } as const;
    assert.equal(start % (alignment[dtype as "F64"] ?? 1), 0, dtype);
  }
  assert.deepEqual(opened.info("bf16").shape, [2, 1]);
  assert.deepEqual([...await opened.floats("f32")], [1.5, -2, NaN]);
  assert.deepEqual([...await opened.floats("bf16")], [1, -3]);
  assert.deepEqual([...await opened.floats("f16")], [1, -2, Infinity]);
  assert.deepEqual([...await opened.floats("f64")], [Math.fround(Math.PI)]);
  assert.deepEqual([...await opened.floats("none")], []);
  assert.deepEqual([...await opened.ints("i64")], [-5, 7]);
  assert.deepEqual([...await opened.ints("u8")], [1, 2, 255]);
});

Deno.test("safetensorsChunks() gives the same bytes whatever the order", async () => {
  const [a, b] = [F32("a", 1), F32("b", 2)];
  assert.deepEqual(await written([a, b]), await written([b, a]));
});

Deno.test("safetensorsChunks() refuses bytes that do not fill the shape, and names used twice", async () => {
  async function* chunks(n: number): AsyncGenerator<Uint8Array> {
    yield await Promise.resolve(new Uint8Array(n));
  }
  const bad: TensorToWrite[][] = [
    [{ ...F32("w", 1, 2), shape: [3] }],
    [{ ...F32("w", 1, 2), bytes: () => chunks(4) }],
    [{ ...F32("w", 1, 2), bytes: () => chunks(12) }],
    [{ ...F32("w", 1, 2), shape: [-2] }],
    [{ ...F32("w", 1, 2), shape: [NaN], bytes: () => chunks(8) }],
    [F32("w", 1), F32("w", 1)],
    [F32("__metadata__", 1)],
  ];
  for (const tensors of bad) {
    await assert.rejects(() => written(tensors), {
      name: "RangeError",
      message: /^Cannot write tensor "(w|__metadata__)": expected /,
    });
  }
});

Deno.test("Safetensors.bytes() reads rows and refuses others", async () => {
  const w = { ...F32("w", 0, 1, 2, 3, 4, 5), shape: [3, 2] };
  const file = await open(await written([F32("before", 9), w]));
  const rows = async (first?: number, last?: number): Promise<number[]> => [
    ...new Float32Array((await file.bytes("w", first, last)).buffer),
  ];
  assert.deepEqual(await rows(), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(await rows(1, 2), [2, 3]);
  assert.deepEqual(await rows(2), [4, 5]);
  assert.deepEqual(await rows(1, 1), []);
  for (const [first, last] of [[-1, 1], [2, 1], [0, 4], [0.5, 1], [0, NaN]]) {
    await assert.rejects(rows(first, last), {
      name: "RangeError",
      message: /expected rows of tensor "w" inside \[0, 3\): got/,
    });
  }
});

Deno.test("Safetensors.info() lists the nearest names when there is no such tensor", async () => {
  const file = await open(
    await written([
      F32("model.layers.0.mlp.up_proj.weight", 1),
      F32("model.norm.weight", 1),
      F32("lm_head.weight", 1),
    ]),
  );
  assert.throws(() => file.info("model.norm.weigth"), {
    name: "RangeError",
    message:
      /^Cannot read "t.safetensors": no tensor "model.norm.weigth": the nearest are "model.norm.weight"/,
  });
});

Deno.test("Safetensors.floats() and ints() refuse other dtypes and values", async () => {
  const file = await open(
    await written([
      F32("w", 1),
      {
        name: "big",
        dtype: "I64",
        shape: [2],
        bytes: bytesOf(BigInt64Array.of(1n, 2n ** 31n)),
      },
    ]),
  );
  await assert.rejects(file.floats("big"), {
    name: "TypeError",
    message:
      'Cannot read "t.safetensors": expected tensor "big" to be F32, F16, BF16 or F64: got I64[2]',
  });
  await assert.rejects(file.ints("w"), { name: "TypeError" });
  await assert.rejects(file.ints("big"), {
    name: "RangeError",
    message: /values of 32 bits in tensor "big": got 2147483648 at 1$/,
  });
});

const INDEX = "model.safetensors.index.json";

async function sharded(
  weightMap: unknown,
): Promise<Record<string, Uint8Array>> {
  const index = JSON.stringify({ metadata: {}, weight_map: weightMap });
  return {
    [INDEX]: new TextEncoder().encode(index),
    "a.safetensors": await written([F32("x", 1), F32("unlisted", 0)]),
    "b.safetensors": await written([F32("y", 2, 3)]),
  };
}

Deno.test("openCheckpoint() reads one file and shards alike", async () => {
  const single = memoryFolder("m", {
    "model.safetensors": await written([F32("x", 1), F32("y", 2, 3)]),
  });
  const map = { x: "a.safetensors", y: "b.safetensors" };
  const many = memoryFolder("m", await sharded(map));
  for (const folder of [single, many]) {
    const checkpoint = await openCheckpoint(folder);
    assert.equal(checkpoint.name, "m");
    assert.deepEqual(checkpoint.names(), ["x", "y"]);
    assert.deepEqual([checkpoint.has("x"), checkpoint.has("z")], [true, false]);
    assert.deepEqual(checkpoint.info("y").shape, [2]);
    assert.deepEqual([...await checkpoint.floats("y")], [2, 3]);
    assert.equal((await checkpoint.bytes("y", 1, 2)).length, 4);
    assert.throws(
      () => checkpoint.info("unlisted"),
      /^RangeError: Cannot read "m": no tensor "unlisted"/,
    );
    await assert.rejects(checkpoint.floats("z"), { name: "RangeError" });
  }
});

Deno.test("openCheckpoint() names what is missing or damaged", async () => {
  const map = { x: "a.safetensors", y: "b.safetensors" };
  const files = await sharded(map);
  const refused = async (
    changed: Record<string, Uint8Array | undefined>,
    message: RegExp,
  ): Promise<void> => {
    const kept = Object.entries({ ...files, ...changed })
      .filter((entry): entry is [string, Uint8Array] => Boolean(entry[1]));
    const folder = memoryFolder("m", Object.fromEntries(kept));
    await assert.rejects(openCheckpoint(folder), { message });
  };
  await refused({ [INDEX]: undefined }, /"m": expected model.safetensors or/);
  await refused(
    { "b.safetensors": undefined },
    /shard "b.safetensors" of .+ is missing/,
  );
  await refused(
    { "b.safetensors": files["b.safetensors"]!.subarray(0, -1) },
    /^Cannot read "m\/b.safetensors": .+ truncated/,
  );
  await refused(
    { "b.safetensors": await written([F32("other", 1)]) },
    /^Cannot read "m\/b.safetensors": no tensor "y"/,
  );
  const outside = [
    "../b.safetensors",
    "/b.safetensors",
    "c:b.safetensors",
    "b.bin",
    1,
  ];
  for (const shard of outside) {
    const index = (await sharded({ x: "a.safetensors", y: shard }))[INDEX];
    await refused(
      { [INDEX]: index },
      /index.json": field "weight_map.y": expected /,
    );
  }
});

Deno.test("openCheckpoint() reads the embedded model", async () => {
  const path = new URL("../../models/tiny-olmo2", import.meta.url).pathname;
  const checkpoint = await openCheckpoint(directory(path));
  const { dtype, shape } = checkpoint.info("model.embed_tokens.weight");
  assert.deepEqual([dtype, shape], ["BF16", [4096, 192]]);
  const row = await checkpoint.bytes("model.embed_tokens.weight", 4095, 4096);
  assert.equal(row.length, 384);
  const norm = await checkpoint.floats("model.norm.weight");
  assert.ok(norm.length === 192 && norm.every((x) => x > 0 && x < 100));
});
