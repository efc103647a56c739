import assert from "node:assert/strict";
import { f32ToBf16 } from "../../core/dtype.ts";
import { directory } from "../../core/files.ts";
import { SaeFile } from "../../core/sae_file.ts";
import {
  Safetensors,
  safetensorsChunks,
  type TensorToWrite,
} from "../../core/safetensors.ts";
import { type Folder, memoryFolder } from "../../core/source.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { savedSae, writableFolder } from "./sae_for_tests.ts";

const fixture = directory(
  new URL("../fixtures/ocs-checkpoint", import.meta.url).pathname,
);

async function bytesOf(tensors: TensorToWrite[]): Promise<Uint8Array> {
  const { files, write } = writableFolder();
  await write("f", safetensorsChunks(tensors));
  return files["f"]!;
}

Deno.test("SaeFile.open() reads open-concept-steering's layout", async () => {
  const sae = await SaeFile.open(fixture, { layer: 1 });
  const file = await Safetensors.open(
    await fixture.open("sae_weights.safetensors"),
  );
  const W_enc = await file.floats("encode.weight");
  const W_dec = await file.floats("decode.weight");
  const { d_model, d_sae } = sae;
  assert.deepEqual([d_model, d_sae], [16, 40]);
  assert.deepEqual(file.info("decode.weight").shape, [16, 40]);
  assert.equal(sae.metadata.hookPoint, "final_norm@1");
  // Half of the 32 blocks of the model that open-concept-steering is made for.
  const usual = await SaeFile.open(fixture);
  assert.equal(usual.metadata.hookPoint, "final_norm@15");
  assert.deepEqual(
    await sae.rowsOfEncoder(3, 9),
    W_enc.slice(3 * d_model, 9 * d_model),
  );
  for (const [start, end] of [[39, 40], [3, 9], [0, 40], [5, 5]] as const) {
    const rows = await sae.rowsOfDecoder(start, end);
    const want = Float32Array.from(
      { length: (end - start) * d_model },
      (_, k) => W_dec[(k % d_model) * d_sae + start + Math.floor(k / d_model)]!,
    );
    assert.deepEqual(rows, want);
  }
  assert.deepEqual(await sae.b_enc(), await file.floats("encode.bias"));
  assert.deepEqual(await sae.b_dec(), await file.floats("decode.bias"));
});

Deno.test("SaeFile reads transposed matrices that do not fit a block, in any order", async () => {
  // 2048 features of 4099 in f32 are 32 MB: blocks of 16 MB are gathered row by row, the last ones in no whole tile.
  const [d_model, d_sae] = [4099, 2048];
  const values = Float32Array.from(
    { length: d_model * d_sae },
    (_, k) => (k * 7) % 251,
  );
  const bytes = await bytesOf([
    tensor("encode.weight", "F32", [d_sae, d_model], values),
    tensor("encode.bias", "F32", [d_sae], new Float32Array(d_sae)),
    tensor("decode.weight", "BF16", [d_model, d_sae], f32ToBf16(values)),
    tensor("decode.bias", "F32", [d_model], new Float32Array(d_model)),
  ]);
  const sae = await SaeFile.open(memoryFolder("large", {
    "sae_config.json": json({ input_size: d_model, hidden_size: d_sae }),
    "sae_weights.safetensors": bytes,
  }));
  for (
    const [start, end] of [[0, 3], [3, 1100], [2047, 2048], [5, 6]] as const
  ) {
    const rows = await sae.rowsOfDecoder(start, end);
    assert.equal(rows.length, (end - start) * d_model);
    for (let k = 0; k < rows.length; k += 997) {
      const feature = start + Math.floor(k / d_model);
      assert.equal(rows[k], values[(k % d_model) * d_sae + feature]);
    }
  }
});

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function tensor(
  name: string,
  dtype: "F32" | "BF16" | "U16",
  shape: readonly number[],
  values: Float32Array | Uint16Array,
): TensorToWrite {
  const { buffer, byteOffset, byteLength } = values;
  const bytes = new Uint8Array(buffer, byteOffset, byteLength);
  return { name, dtype, shape, bytes };
}

async function smallFolder(
  change: { [name: string]: TensorToWrite | undefined } = {},
  config: unknown = { input_size: 2, hidden_size: 3 },
): Promise<Folder> {
  const ones = (n: number): Float32Array => new Float32Array(n).fill(1);
  const tensors: { [name: string]: TensorToWrite | undefined } = {
    "encode.weight": tensor("encode.weight", "F32", [3, 2], ones(6)),
    "encode.bias": tensor("encode.bias", "F32", [3], ones(3)),
    "decode.weight": tensor("decode.weight", "F32", [2, 3], ones(6)),
    "decode.bias": tensor("decode.bias", "F32", [2], ones(2)),
    ...change,
  };
  const present = Object.values(tensors).filter((one) => one !== undefined);
  return memoryFolder("small", {
    "sae_config.json": json(config),
    "sae_weights.safetensors": await bytesOf(present),
  });
}

Deno.test("SaeFile.open() names file and tensor when weights do not fit the config", async () => {
  const turned = tensor("decode.weight", "F32", [3, 2], new Float32Array(6));
  const whole = tensor("encode.weight", "U16", [3, 2], new Uint16Array(6));
  const cases: [RegExp, Promise<Folder>][] = [
    [
      /^TypeError: .*sae_weights.safetensors".*"decode.weight".*\[2, 3\]: got F32\[3, 2\]/,
      smallFolder({ "decode.weight": turned }),
    ],
    [
      /^TypeError: .*"encode.weight".*got U16/,
      smallFolder({
        "encode.weight": whole,
      }),
    ],
    [
      /^RangeError: .*no tensor "encode.weight"/,
      smallFolder({
        "encode.weight": undefined,
      }),
    ],
    [
      /^TypeError: .*\[9, 2\]/,
      smallFolder({}, {
        input_size: 2,
        hidden_size: 9,
      }),
    ],
    [
      /^SyntaxError: .*sae_config.json".*"hidden_size"/,
      smallFolder({}, {
        input_size: 2,
        hidden_size: -3,
      }),
    ],
    [/^SyntaxError: .*sae_config.json"/, smallFolder({}, [])],
    [
      /^Error: .*"none": expected sae_weights.safetensors, sae.safetensors, sae_final.pt/,
      Promise.resolve(memoryFolder("none", {})),
    ],
  ];
  for (const [pattern, folder] of cases) {
    const opened = await folder;
    await rejectsInOneLine(() => SaeFile.open(opened), pattern);
  }
});

Deno.test("SaeFile names tensor and feature when a weight is not finite or there is no such feature", async () => {
  const nan = Float32Array.of(1, 1, 1, 1, NaN, 1);
  const sae = await SaeFile.open(
    await smallFolder({
      "encode.weight": tensor("encode.weight", "F32", [3, 2], nan),
      "decode.weight": tensor("decode.weight", "F32", [2, 3], nan),
      "decode.bias": tensor("decode.bias", "F32", [2], nan.subarray(3, 5)),
    }),
  );
  await rejectsInOneLine(
    () => sae.rowsOfEncoder(0, 3),
    /^RangeError: .*"encode.weight": got NaN at feature 2: /,
  );
  await rejectsInOneLine(
    () => sae.rowsOfDecoder(1, 3),
    /^RangeError: .*"decode.weight": got NaN at feature 1: /,
  );
  await rejectsInOneLine(
    () => sae.b_dec(),
    /"decode.bias": got NaN at \[1\]: /,
  );
  assert.deepEqual(await sae.rowsOfEncoder(0, 2), Float32Array.of(1, 1, 1, 1));
  for (const [start, end] of [[0, 4], [-1, 1], [2, 1], [0.5, 1]] as const) {
    await rejectsInOneLine(
      () => sae.rowsOfEncoder(start, end),
      /^RangeError: .*\[0, 3\)/,
    );
  }
});

Deno.test("SaeFile.open() reads SAELens files of others and refuses those it cannot run", async () => {
  const { files } = await savedSae();
  const config = JSON.parse(new TextDecoder().decode(files["cfg.json"]));
  const openWith = (change: Record<string, unknown>): Promise<SaeFile> =>
    SaeFile.open(memoryFolder("sae", {
      ...files,
      "cfg.json": json({ ...config, ...change }),
    }));
  const { open_concept_steering: _, ...metadata } = config.metadata;
  const plain = await openWith({ metadata });
  assert.deepEqual(plain.metadata, {
    architecture: "relu",
    hookPoint: "resid_post[3]",
    modelName: "tiny-olmo2",
    contextLength: 256,
    inputScale: 1,
  });
  const elsewhere = await openWith({
    metadata: { ...metadata, hook_name: "blocks.3.hook_mlp_out" },
  });
  assert.equal(elsewhere.metadata.hookPoint, undefined);
  const refused: [string, Record<string, unknown>][] = [
    ["architecture", { architecture: "transcoder" }],
    ["k", { architecture: "topk" }],
    ["k", { architecture: "topk", k: 12 }],
    ["apply_b_dec_to_input", { apply_b_dec_to_input: 1 }],
    ["normalize_activations", { normalize_activations: "layer_norm" }],
    ["normalize_activations", {
      normalize_activations: "constant_norm_rescale",
    }],
    ["reshape_activations", { reshape_activations: "hook_z" }],
    ["d_sae", { d_sae: 1e99 }],
  ];
  for (const [field, change] of refused) {
    await rejectsInOneLine(
      () => openWith(change),
      new RegExp(`^SyntaxError: .*cfg.json": field "${field}"`),
    );
  }
});

Deno.test("SaeFile.open() refuses an SAE when it is of another layer than asked", async () => {
  const { folder } = await savedSae();
  assert.ok(await SaeFile.open(folder(), { layer: 3 }));
  await rejectsInOneLine(
    () => SaeFile.open(folder(), { layer: 4 }),
    /^RangeError: .*layer 4.*resid_post\[3\]: leave --layer out$/,
  );
});
