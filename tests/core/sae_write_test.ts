import { deepEqual, equal, ok, rejects, throws } from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import { Rng } from "../../core/rng.ts";
import {
  foldSae,
  type SaeArchitecture,
  SaeFile,
  saveSae,
} from "../../core/sae_file.ts";
import {
  checkTarget,
  SAE_TARGETS,
  type SaeTarget,
  type SaeToWrite,
  writeSae,
  type WriteSaeOptions,
} from "../../core/sae_write.ts";
import { transposedTensor } from "../../core/sae_write_rows.ts";
import { Safetensors } from "../../core/safetensors.ts";
import { assertRelativeError } from "../assert_close.ts";
import {
  type Features,
  LIBRARIES,
  plus,
  product,
  readSaeFiles,
  topk,
} from "../reference/sae_libraries.ts";
import {
  ARCHITECTURES,
  METADATA,
  randomWeights,
  withArchitecture,
  writableFolder,
} from "./sae_for_tests.ts";

const [D_MODEL, D_SAE] = [7, 26];

/** A saved SAE, opened. */
async function opened(
  architecture: SaeArchitecture,
): Promise<SaeFile & SaeToWrite> {
  const { weights, k } = withArchitecture(
    architecture,
    randomWeights(5, D_MODEL, D_SAE),
  );
  foldSae(weights, METADATA.inputScale, architecture);
  const { folder, write } = writableFolder();
  const metadata = { ...METADATA, architecture, ...(k && { k }) };
  await saveSae(write, { weights, metadata });
  return await SaeFile.open(folder()) as SaeFile & SaeToWrite;
}

/** An SAE with something changed. */
function changed(
  sae: SaeFile & SaeToWrite,
  change: Partial<SaeToWrite>,
): SaeToWrite {
  return {
    d_model: sae.d_model,
    d_sae: sae.d_sae,
    metadata: sae.metadata,
    rowsOfEncoder: (start, end) => sae.rowsOfEncoder(start, end),
    rowsOfDecoder: (start, end) => sae.rowsOfDecoder(start, end),
    b_enc: () => sae.b_enc(),
    b_dec: () => sae.b_dec(),
    threshold: () => sae.threshold(),
    ...change,
  };
}

/** An SAE in another layout. */
async function written(
  sae: SaeToWrite,
  target: SaeTarget,
  options: WriteSaeOptions = {},
): Promise<ReturnType<typeof writableFolder>> {
  const result = writableFolder();
  await writeSae(result.write, sae, target, options);
  return result;
}

/** The files that were written. */
function filesOf(
  { files, folder }: ReturnType<typeof writableFolder>,
): ReturnType<typeof readSaeFiles> {
  const [weights = "", config = ""] = Object.keys(files);
  return readSaeFiles(folder(), weights, config);
}

/** Which layouts say what. */
const PAIRS: readonly (readonly [SaeArchitecture, SaeTarget])[] = [
  ["relu", "saelens"],
  ["relu", "open-concept-steering"],
  ["topk", "saelens"],
  ["topk", "sparsify"],
  ["jumprelu", "saelens"],
];

/** What an SAE makes of a vector, by this project's definition, in float64. */
async function ours(sae: SaeFile, x: Float64Array): Promise<Features> {
  const w = await sae.weights();
  const wide = (values: Float32Array) => Float64Array.from(values);
  const pre = plus(product(wide(w.W_enc), x), wide(w.b_enc));
  const relu = pre.map((value) => Math.max(value, 0));
  const acts = sae.k
    ? topk(relu, sae.k)
    : relu.map((act, i) => pre[i]! > (w.threshold?.[i] ?? 0) ? act : 0);
  const xHat = plus(product(wide(w.W_dec), acts, true), wide(w.b_dec));
  return { acts, xHat };
}

for (const [architecture, target] of PAIRS) {
  Deno.test(`writeSae() keeps features and reconstruction of ${architecture} in ${target}, by that library's formula`, async () => {
    const sae = await opened(architecture);
    const files = await filesOf(await written(sae, target));
    const rng = new Rng(9);
    let nFired = 0;
    for (let n = 0; n < 30; n++) {
      const x = Float64Array.from({ length: D_MODEL }, () => 3 * rng.normal());
      const want = await ours(sae, x);
      const got = LIBRARIES[target](files, x);
      // The bias of sparsify is rounded to f32 once; all else is the same number.
      const limit = target === "sparsify" ? 1e-6 : 1e-13;
      assertRelativeError(got.acts, want.acts, limit, "acts");
      assertRelativeError(got.xHat, want.xHat, limit, "x̂");
      const fires = (acts: Float64Array) => acts.map((act) => act > 0 ? 1 : 0);
      deepEqual(fires(got.acts), fires(want.acts));
      nFired += want.acts.filter((act) => act > 0).length;
    }
    ok(nFired > 30 && nFired < 30 * D_SAE / 1.5, `${nFired} fire`);
  });
}

Deno.test("writeSae() gives matrices the orientation and names of each library", async () => {
  const shapesOf = async (
    architecture: SaeArchitecture,
    target: SaeTarget,
  ) =>
    (await filesOf(await written(await opened(architecture), target)))
      .shapes;
  deepEqual(await shapesOf("relu", "open-concept-steering"), {
    "encode.weight": [26, 7],
    "decode.weight": [7, 26],
    "encode.bias": [26],
    "decode.bias": [7],
  });
  deepEqual(await shapesOf("topk", "sparsify"), {
    "encoder.weight": [26, 7],
    "W_dec": [26, 7],
    "encoder.bias": [26],
    "b_dec": [7],
  });
});

Deno.test("writeSae() writes the config that sparsify reads", async () => {
  const { config } = await filesOf(
    await written(await opened("topk"), "sparsify"),
  );
  const { open_concept_steering, ...theirs } = config;
  const ours = open_concept_steering as Readonly<Record<string, unknown>>;
  deepEqual(theirs, {
    activation: "topk",
    expansion_factor: 4,
    normalize_decoder: false,
    num_latents: 26,
    k: 4,
    multi_topk: false,
    skip_connection: false,
    transcode: false,
    d_in: 7,
  });
  equal(ours["hookPoint"], "resid_post[3]");
});

Deno.test("writeSae() for open-concept-steering and back loses nothing, bit for bit", async () => {
  const sae = await opened("relu");
  const there = await written(sae, "open-concept-steering");
  const middle = await SaeFile.open(there.folder());
  equal(middle.layout, "open-concept-steering");
  deepEqual(middle.metadata, sae.metadata);
  const back = await written(middle as SaeFile & SaeToWrite, "saelens");
  const again = await SaeFile.open(back.folder());
  deepEqual(again.metadata, sae.metadata);
  deepEqual(await again.weights(), await sae.weights());
  deepEqual(back.files, (await written(sae, "saelens")).files);
});

Deno.test("writeSae() writes its config last", async () => {
  for (const [architecture, target] of PAIRS) {
    const { files } = await written(await opened(architecture), target);
    const names = Object.keys(files);
    equal(names.length, 2);
    ok(names[0]!.endsWith(".safetensors") && names[1]!.endsWith(".json"));
  }
});

Deno.test("writeSae() rounds to bf16 where asked, and refuses what bf16 cannot hold", async () => {
  const sae = await opened("relu");
  const { folder } = await written(sae, "open-concept-steering", {
    dtype: "BF16",
  });
  const file = await Safetensors.open(
    await folder().open("sae_weights.safetensors"),
  );
  equal(file.info("decode.weight").dtype, "BF16");
  const read = await SaeFile.open(folder());
  const { W_enc, W_dec } = await sae.weights();
  const { W_enc: enc, W_dec: dec } = await read.weights();
  deepEqual(enc, bf16ToF32(f32ToBf16(W_enc)));
  deepEqual(dec, bf16ToF32(f32ToBf16(W_dec)));

  const large = changed(sae, {
    b_dec: () => Promise.resolve(new Float32Array(D_MODEL).fill(3.4e38)),
  });
  const { files, write } = writableFolder();
  await rejects(
    writeSae(write, large, "open-concept-steering", { dtype: "BF16" }),
    /^RangeError: Cannot write tensor "decode.bias" as bf16: .* got 3.39.*e\+38: write it as f32$/,
  );
  deepEqual(files, {});
});

Deno.test("writeSae() refuses what a layout cannot say, naming those that can, and writes nothing", async () => {
  let nRefused = 0;
  for (const architecture of ARCHITECTURES) {
    for (const target of SAE_TARGETS) {
      if (PAIRS.some(([a, t]) => a === architecture && t === target)) {
        checkTarget({ architecture }, target);
        continue;
      }
      nRefused++;
      throws(
        () => checkTarget({ architecture }, target),
        /^TypeError: Cannot write the SAE for [a-z-]+: expected (topk|relu), .*: got [a-z]+: write saelens( or [a-z-]+)?$/,
      );
      const { files, write } = writableFolder();
      await rejects(
        writeSae(write, await opened(architecture), target),
        TypeError,
      );
      deepEqual(files, {});
    }
  }
  equal(nRefused, 4);
});

Deno.test("writeSae() writes no config when a value is not finite", async () => {
  const sae = await opened("topk");
  // The bias of sparsify is a sum, and overflows where neither part does.
  const huge = changed(sae, {
    b_enc: () => Promise.resolve(new Float32Array(D_SAE).fill(3e38)),
    b_dec: () => Promise.resolve(new Float32Array(D_MODEL).fill(1e38)),
    rowsOfEncoder: (start, end) =>
      Promise.resolve(new Float32Array((end - start) * D_MODEL).fill(1)),
  });
  const { files, write } = writableFolder();
  await rejects(
    writeSae(write, huge, "sparsify"),
    /^RangeError: Cannot write tensor "encoder.bias": expected finite values: got Infinity at 0$/,
  );
  deepEqual(files, {});
  const unreadable = changed(sae, {
    rowsOfDecoder: () => Promise.reject(new RangeError("damaged")),
  });
  await rejects(writeSae(write, unreadable, "sparsify"), /damaged/);
  ok(!("cfg.json" in files));
});

Deno.test("transposedTensor() reads a bounded run of features at a time, and gives the transpose whatever its blocks", async () => {
  // Runs of 8 MiB are 8 features of 2^18 dimensions.
  const [d_sae, d_model] = [19, 2 ** 18];
  let largest = 0;
  let nReads = 0;
  const value = (i: number, j: number): number => (31 * i + 7 * j) % 1021;
  const matrix = {
    d_sae,
    d_model,
    read(start: number, end: number): Promise<Float32Array> {
      largest = Math.max(largest, end - start);
      nReads++;
      const rows = new Float32Array((end - start) * d_model);
      for (let i = start; i < end; i++) {
        const row = rows.subarray((i - start) * d_model);
        for (let j = 0; j < d_model; j++) row[j] = value(i, j);
      }
      return Promise.resolve(rows);
    },
  };
  const columns = 230_001; // two blocks, the first of which is written in two chunks
  const { bytes } = transposedTensor("W", "F32", matrix, 4 * d_sae * columns);
  ok(!(bytes instanceof Uint8Array));
  let nValues = 0;
  let nChunks = 0;
  for await (const chunk of bytes()) {
    const values = new Float32Array(chunk.buffer);
    for (let at = 0; at < values.length; at += 97) {
      const [j, i] = [
        Math.floor((nValues + at) / d_sae),
        (nValues + at) % d_sae,
      ];
      if (values[at] !== value(i, j)) equal(values[at], value(i, j));
    }
    nValues += values.length;
    nChunks++;
  }
  equal(nValues, d_model * d_sae);
  equal(nChunks, 3);
  equal(largest, 8);
  equal(nReads, 2 * 3);
});
