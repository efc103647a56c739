import assert from "node:assert/strict";
import { SaeFile } from "../../core/sae_file.ts";
import { memoryFolder, memorySource, type Source } from "../../core/source.ts";
import { TorchFile } from "../../core/torch_file.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { formatFolder } from "./sae_references.ts";
import { latin1, type Packed, zip } from "./zip_for_tests.ts";

const text = (value: string): string =>
  `X${String.fromCharCode(value.length)}\0\0\0${value}`;
const int = (value: number): string =>
  value >= 0 && value < 256 ? `K${String.fromCharCode(value)}` : long(value);
const long = (value: number): string => {
  const bytes = new DataView(new ArrayBuffer(8));
  bytes.setBigInt64(0, BigInt(value), true);
  return "\x8a\x08" +
    String.fromCharCode(...new Uint8Array(bytes.buffer));
};
const tuple = (...items: string[]): string => `(${items.join("")}t`;

/** The steps that make a tensor; whatever is given replaces what is usual. */
function tensor(
  options: {
    shape?: number[];
    strides?: number[];
    offset?: number;
    length?: number;
    key?: string;
    storage?: string;
  } = {},
): string {
  const {
    shape = [2, 3],
    strides = [3, 1],
    offset = 0,
    length = 6,
    key = text("0"),
    storage = "ctorch\nFloatStorage\n",
  } = options;
  const id = tuple(text("storage"), storage, key, text("cpu"), int(length));
  return `ctorch._utils\n_rebuild_tensor_v2\n${
    tuple(
      `${id}Q`,
      int(offset),
      tuple(...shape.map(int)),
      tuple(...strides.map(int)),
      "\x89",
      "ccollections\nOrderedDict\n)R",
    )
  }R`;
}

const dict = (entries: Record<string, string>): string =>
  `}(${
    Object.entries(entries).map(([key, value]) => text(key) + value).join("")
  }u`;

const SIX = new Uint8Array(Float32Array.of(1, 2, 3, 4, 5, 6).buffer);

/** A checkpoint with this pickle and six numbers in storage 0. */
function checkpoint(pickle: string, files: readonly Packed[] = []): Source {
  const usual: Packed[] = [
    { name: "m/data.pkl", bytes: latin1(`\x80\x02${pickle}.`) },
    { name: "m/byteorder", bytes: latin1("little") },
    { name: "m/data/0", bytes: SIX },
  ];
  const replaced = new Set(files.map(({ name }) => name));
  const kept = usual.filter(({ name }) => !replaced.has(name));
  return memorySource("a.pt", zip([...kept, ...files]));
}

async function values(file: TorchFile, name: string): Promise<number[]> {
  const { shape } = file.info(name);
  const n = shape.reduce((product, size) => product * size, 4);
  return [...new Float32Array((await file.read(name, 0, n)).buffer)];
}

Deno.test("TorchFile reads views of storages by range, transposed ones too", async () => {
  const file = await TorchFile.open(checkpoint(dict({
    whole: tensor(),
    turned: tensor({ shape: [3, 2], strides: [1, 3] }),
    tail: tensor({ shape: [2], strides: [1], offset: 4 }),
    scalar: tensor({ shape: [], strides: [], offset: 5 }),
    none: tensor({ shape: [0], strides: [1] }),
    column: tensor({ shape: [3, 1], strides: [1, 7], offset: 3 }),
    text: text("not a tensor"),
  })));
  assert.deepEqual(await values(file, "whole"), [1, 2, 3, 4, 5, 6]);
  assert.equal(file.info("whole").isTransposed, undefined);
  assert.deepEqual(await values(file, "turned"), [1, 2, 3, 4, 5, 6]);
  assert.equal(file.info("turned").isTransposed, true);
  assert.deepEqual(await values(file, "tail"), [5, 6]);
  assert.deepEqual(await values(file, "scalar"), [6]);
  assert.deepEqual(await values(file, "none"), []);
  assert.deepEqual(await values(file, "column"), [4, 5, 6]);
  assert.equal(file.tensors.has("text"), false);
  assert.deepEqual(
    await file.read("tail", 4, 8),
    new Uint8Array(Float32Array.of(6).buffer),
  );
  await rejectsInOneLine(() => file.read("tail", 4, 12), /inside \[0, 8\)/);
  await rejectsInOneLine(
    () => file.read("tale", 0, 4),
    /no tensor "tale": the nearest are "tail"/,
  );
});

Deno.test("TorchFile finds the state dict, without what torch.compile puts before names and with its attributes", async () => {
  const compiled = dict({ "_orig_mod.w": tensor(), "_orig_mod.b": tensor() });
  const parameter = `ctorch._utils\n_rebuild_parameter\n${
    tuple(tensor(), "\x88", "ccollections\nOrderedDict\n)R")
  }R`;
  const ordered = `ccollections\nOrderedDict\n)R(${text("w")}${tensor()}${
    text("b")
  }${parameter}u}${text("_metadata")}}sb`;
  for (
    const pickle of [
      compiled,
      ordered,
      dict({ model_state_dict: compiled, epoch: "K\x03" }),
    ]
  ) {
    const file = await TorchFile.open(checkpoint(pickle));
    assert.deepEqual([...file.tensors.keys()], ["w", "b"]);
  }
});

Deno.test("TorchFile reads the bytes of a tensor that it is asked for, and no more", async () => {
  const folder = formatFolder("ocs");
  const source = await folder.open("sae_checkpoint_epoch_0.pt");
  let nBytes = 0;
  const counting: Source = {
    ...source,
    async read(start, end) {
      nBytes += end - start;
      return await source.read(start, end);
    },
  };
  const file = await TorchFile.open(counting);
  const described = nBytes;
  for (const { name } of file.tensors.values()) {
    await file.read(name, 0, 8);
  }
  assert.equal(nBytes - described, 4 * 8);
});

Deno.test("TorchFile.open() refuses pickles that name anything but weights, wherever they do", async () => {
  const system = "cos\nsystem\n(X\x04\0\0\0truetR";
  for (
    const pickle of [
      system,
      dict({ model_state_dict: dict({ w: tensor() }), config: system }),
      dict({ w: tensor({ storage: "c__builtin__\neval\n" }) }),
      dict({ w: tensor({ key: system }) }),
    ]
  ) {
    await rejectsInOneLine(
      () => TorchFile.open(checkpoint(pickle)),
      /^TypeError: Cannot read "a.pt": .*got the name "(os system|__builtin__ eval)": nothing was run/,
    );
  }
  const hostile = checkpoint(system);
  const folder = memoryFolder("f", {
    "sae_final.pt": await hostile.read(0, hostile.byteLength),
  });
  await rejectsInOneLine(
    () => SaeFile.open(folder),
    /"f\/sae_final.pt".*"os system"/,
  );
});

Deno.test("TorchFile.open() refuses tensors that are not inside their storage, or have gaps", async () => {
  const outside =
    /^TypeError: .*expected a tensor that lies inside its storage/;
  const gaps = /^TypeError: .*expected tensor "w" without gaps: got shape/;
  const storage = /^TypeError: .*expected a storage of one type and length/;
  const cases: [string, RegExp][] = [
    [tensor({ offset: 1 }), outside],
    [tensor({ shape: [2, 4], strides: [4, 1] }), outside],
    [tensor({ shape: [2, 2 ** 52], strides: [2 ** 52, 1] }), outside],
    [tensor({ shape: [2 ** 53 - 1, 3], strides: [2 ** 53 - 1, 1] }), outside],
    [tensor({ shape: [-1, 3] }), outside],
    [tensor({ offset: -1 }), outside],
    [tensor({ strides: [3] }), outside],
    [
      tensor({ shape: Array(9).fill(1), strides: Array(9).fill(1) }),
      outside,
    ],
    [tensor({ shape: [2, 2], strides: [3, 1] }), gaps],
    [tensor({ shape: [2, 3], strides: [0, 1] }), gaps],
    [tensor({ shape: [6], strides: [0] }), gaps],
    [tensor({ shape: [1, 2, 3], strides: [6, 1, 2] }), gaps],
    [tensor({ storage: "ctorch\nfloat32\n" }), storage],
    [tensor({ storage: text("FloatStorage") }), storage],
    [tensor({ key: "K\0" }), storage],
    [tensor({ length: -1 }), storage],
    [
      tensor() + "0" + tensor({ length: 7 }),
      storage,
    ],
    [tensor() + "0" + tensor({ storage: "ctorch\nHalfStorage\n" }), storage],
    [
      tensor({ length: 7 }),
      /^RangeError: .*expected 28 bytes in the entry of tensor "w": got 24/,
    ],
    [
      tensor({ key: text("1") }),
      /^RangeError: .*entry of tensor "w": got none/,
    ],
    [
      tensor({ key: text("../data/0") }),
      /^RangeError: .*entry of tensor "w": got none/,
    ],
    ["K\x01", /^TypeError: .*expected a state dict/],
    [
      "ccollections\nOrderedDict\n(]tR",
      /^TypeError: .*an ordered dict that is filled item by item/,
    ],
    [
      "ctorch._utils\n_rebuild_parameter\n(NtR",
      /^TypeError: .*a parameter that is a tensor/,
    ],
  ];
  for (const [steps, pattern] of cases) {
    await rejectsInOneLine(
      () => TorchFile.open(checkpoint(dict({ w: steps }))),
      pattern,
    );
  }
  await rejectsInOneLine(
    () =>
      TorchFile.open(
        checkpoint(dict({ w: tensor(), "_orig_mod.w": tensor() })),
      ),
    /^TypeError: .*expected one tensor "w": got two/,
  );
});

Deno.test("TorchFile.open() refuses archives that torch.save does not write", async () => {
  const pickle = dict({ w: tensor() });
  const big = { name: "m/byteorder", bytes: latin1("big") };
  const packed = { name: "m/data/0", bytes: SIX, deflate: true };
  const damaged = {
    name: "m/data.pkl",
    bytes: latin1(`\x80\x02${pickle}.`),
    crc: 5,
  };
  const cases: [Source, RegExp][] = [
    [checkpoint(pickle, [big]), /^SyntaxError: .*byte order little: got "big"/],
    [checkpoint(pickle, [packed]), /^RangeError: .*got compressed ones/],
    [checkpoint(pickle, [damaged]), /^RangeError: .*"m\/data.pkl".*checksum/],
    [
      checkpoint(pickle, [{ name: "n/data.pkl", bytes: latin1("N.") }]),
      /^SyntaxError: .*one entry data.pkl, as torch.save writes: got 2/,
    ],
    [
      memorySource("a.pt", zip([{ name: "a", bytes: SIX }])),
      /^SyntaxError: .*one entry data.pkl, as torch.save writes: got 0/,
    ],
    // What torch.save wrote before version 1.6, and torch.load still reads.
    [
      memorySource(
        "a.pt",
        latin1("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."),
      ),
      /^SyntaxError: .*of PyTorch 1.6 or newer, which is a zip file: got another/,
    ],
    [memorySource("a.pt", new Uint8Array(0)), /^SyntaxError: .*got another/],
  ];
  for (const [source, pattern] of cases) {
    await rejectsInOneLine(() => TorchFile.open(source), pattern);
  }
  const whole = checkpoint(pickle);
  const bytes = await whole.read(0, whole.byteLength);
  for (let n = 0; n < bytes.length; n += 7) {
    await rejectsInOneLine(
      () => TorchFile.open(memorySource("a.pt", bytes.slice(0, n))),
      /^(SyntaxError|RangeError): Cannot read /,
    );
  }
});
