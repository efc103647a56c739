/** What recipes promise, through the whole of a run: batches in, files out. */
import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { Sae } from "../../core/sae.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { Safetensors, safetensorsChunks } from "../../core/safetensors.ts";
import { memoryFolder, memorySource } from "../../core/source.ts";
import type { Gpu } from "../../gpu/mod.ts";
import type { RowGroups } from "../../train/batches.ts";
import { CHECKPOINT_FILE } from "../../train/checkpoint.ts";
import { evaluateResiduals, type SaeEvaluation } from "../../train/evaluate.ts";
import type { MetricsLine } from "../../train/metrics_line.ts";
import { ARCHITECTURES, type SaeRecipe } from "../../train/recipe.ts";
import { trainingMemory } from "../../train/trainer.ts";
import { trainerConfig } from "../../train/train.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  D,
  N_TRUE,
  smallRecipe,
  type SmallRun,
  smallRun,
  sparseData,
} from "./small_run.ts";

/** Mean of a field over the last lines, which a batch alone would leave to chance. */
function lately(
  lines: readonly MetricsLine[],
  field: "fvu" | "L0" | "loss",
): number {
  const last = lines.slice(-20);
  return last.reduce((sum, line) => sum + line[field], 0) / last.length;
}

async function evaluate(
  gpu: Gpu,
  { files }: SmallRun,
  data: RowGroups,
): Promise<SaeEvaluation> {
  using sae = await Sae.load(
    gpu,
    await SaeFile.open(memoryFolder("sae", files)),
  );
  async function* all(): AsyncGenerator<Uint16Array<ArrayBuffer>> {
    for (const group of data.sizes.keys()) yield await data.read(group);
  }
  return await evaluateResiduals(gpu, sae, all());
}

/** Fields that suit the data, each vector of which has two true features. */
const FIELDS: Record<SaeRecipe["architecture"], Partial<SaeRecipe>> = {
  relu: { lambda: 1 },
  topk: { k: 2 },
  batchtopk: { k: 2 },
  jumprelu: {},
};

Deno.test("trainSae() saves SAEs of every architecture that are as good on raw vectors as they were in training", async () => {
  const gpu = await testGpu();
  const data = sparseData(4000, 512);
  for (const architecture of ARCHITECTURES) {
    const fields = { ...FIELDS[architecture], architecture };
    const recipe = smallRecipe({
      steps: 300,
      batch: 128,
      lr: 1e-2,
      bufferRows: 5000,
      holdOut: 0,
      ...fields,
    });
    const run = await smallRun(gpu, data, recipe);
    const file = await SaeFile.open(memoryFolder("sae", run.files));
    const { lines } = run;
    const got = await evaluate(gpu, run, data);
    const label = `${architecture}: FVU ${got.fvu}, L0 ${got.L0}`;
    ok(got.fvu < 0.2, label);
    assertClose([got.fvu], [lately(lines, "fvu")], { rtol: 0.1, label });
    assertClose([got.L0], [lately(lines, "L0")], { rtol: 0.1, label });
    equal(
      file.metadata.architecture,
      architecture === "batchtopk" ? "jumprelu" : architecture,
    );
    equal(
      (await file.weights()).threshold !== undefined,
      [
        "batchtopk",
        "jumprelu",
      ].includes(architecture),
    );
  }
});

Deno.test("trainSae() comes to the same on either path, and on whichever is cheaper", async () => {
  const gpu = await testGpu();
  const data = sparseData(1000, 64);
  for (const architecture of ARCHITECTURES) {
    const recipe = smallRecipe({ architecture, steps: 30 });
    const losses: number[][] = [];
    const paths: Set<string>[] = [];
    for (const path of ["dense", "sparse", "auto"] as const) {
      const { lines } = await smallRun(gpu, data, recipe, { path });
      losses.push(lines.map(({ loss }) => loss));
      paths.push(new Set(lines.map((line) => line.path)));
    }
    deepEqual(paths.slice(0, 2), [new Set(["dense"]), new Set(["sparse"])]);
    for (const other of losses.slice(1)) {
      // f32 sums in another order, in 30 steps of Adam, which divides by small roots.
      assertClose(other, losses[0]!, { rtol: 1e-4, label: architecture });
    }
  }
});

Deno.test("trainSae() writes no padding for sizes that are multiples of nothing", async () => {
  const gpu = await testGpu();
  const data = sparseData(500, 64);
  const recipe = smallRecipe({ d_sae: 1537, batch: 33, steps: 4 });
  const run = await smallRun(gpu, data, recipe, { checkpointEvery: 2 });
  const file = await SaeFile.open(memoryFolder("sae", run.files));
  const weights = await file.weights();
  equal(file.d_sae, 1537);
  equal(weights.W_enc.length, 1537 * D);
  equal(weights.b_enc.length, 1537);
  const bytes = run.files["sae_weights.safetensors"]!;
  const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  equal(bytes.length, 8 + headerBytes + 4 * (2 * 1537 * D + 1537 + D));
  const got = await evaluate(gpu, run, data);
  equal(got.density.length, 1537);
});

Deno.test("trainSae() comes to the same with two batches a step as with one twice as large", async () => {
  const gpu = await testGpu();
  // Rows are drawn one by one from data in memory, so the same ones come.
  const data = sparseData(1000, 64);
  const fields = { bufferRows: 5000, steps: 30 };
  const whole = await smallRun(
    gpu,
    data,
    smallRecipe({ ...fields, batch: 64 }),
  );
  const halves = await smallRun(
    gpu,
    data,
    smallRecipe({ ...fields, batch: 32, accumulate: 2 }),
  );
  for (const field of ["loss", "L0", "gradNorm", "fvu", "tokens"] as const) {
    const [a, b] = [whole, halves].map(({ lines }) =>
      lines.map((line) => line[field])
    );
    // An activation within rounding of 0 may count in one of them only.
    assertClose(b!, a!, { rtol: 1e-4, atol: 0.05, label: field });
  }
});

Deno.test("trainSae() keeps 8-bit moments in a quarter of the memory, and its loss within 1 %", async () => {
  const gpu = await testGpu();
  const data = sparseData(4000, 512);
  const fields = { steps: 300, batch: 64, lr: 1e-2, bufferRows: 5000 };
  const end: number[] = [];
  const bytes: number[] = [];
  for (const moments of ["f32", "q8"] as const) {
    const recipe = smallRecipe({ ...fields, moments });
    const { lines } = await smallRun(gpu, data, recipe);
    end.push(lately(lines, "loss"));
    const memory = trainingMemory(
      trainerConfig({ ...recipe, d_sae: 65_536 }, {
        d_model: 4096,
        inputScale: 1,
      }),
    );
    bytes.push(memory.find(({ what }) => what.startsWith("moments"))!.bytes);
  }
  assertClose([end[1]!], [end[0]!], { rtol: 0.01, label: "loss" });
  assertClose([bytes[1]! / bytes[0]!], [0.25], { atol: 0.01, label: "share" });
});

Deno.test("trainSae() warms lr up, writes only an SAE, and names the first step that is not finite", async () => {
  const gpu = await testGpu();
  const data = sparseData(1000, 64);
  const recipe = smallRecipe({ lrWarmup: 0.2, lrDecay: 0.25, lr: 4e-3 });
  const { lines, files } = await smallRun(gpu, data, recipe);
  assertClose(
    lines.slice(0, 6).map(({ lr }) => lr),
    [1e-3, 2e-3, 3e-3, 4e-3, 4e-3, 4e-3],
    { rtol: 1e-12, label: "lr" },
  );
  assertClose([lines[19]!.lr], [4e-3 / 5], { rtol: 1e-12, label: "last lr" });
  ok(!(CHECKPOINT_FILE in files));
  await rejects(
    smallRun(gpu, data, smallRecipe({ lr: 1e30 }), { metricsEvery: 7 }),
    /expected finite numbers: got \S+ for the loss of step 1 /,
  );
});

/** A checkpoint in which odd features are so far down that they cannot fire. */
async function pushedDown(
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  const file = await Safetensors.open(memorySource("checkpoint", bytes));
  const b_enc = new Float32Array((await file.bytes("b_enc")).buffer);
  const changed = b_enc.map((b, i) => i % 2 === 1 ? -100 : b);
  const tensors = [...file.tensors.values()].map(({ name, dtype, shape }) => ({
    name,
    dtype,
    shape,
    bytes: async function* (): AsyncGenerator<Uint8Array> {
      yield name === "b_enc"
        ? new Uint8Array(changed.buffer)
        : await file.bytes(name);
    },
  }));
  const chunks = safetensorsChunks(tensors, file.metadata);
  return await new Response(ReadableStream.from(chunks)).bytes();
}

Deno.test("trainSae() brings dead features back by resampling, and explains more with them", async () => {
  const gpu = await testGpu();
  const data = sparseData(4000, 512);
  for (
    const fields of [{ lambda: 0.3 }, { architecture: "topk", k: 2 }] as const
  ) {
    const ends: { dead: number; fvu: number }[] = [];
    for (const resampleEvery of [0, 40]) {
      const recipe = smallRecipe({
        d_sae: N_TRUE,
        steps: 300,
        batch: 64,
        bufferRows: 5000,
        deadAfter: 40 * 64,
        resampleEvery,
        ...fields,
      });
      const stop = new AbortController();
      stop.abort();
      const begun = await smallRun(gpu, data, recipe, { signal: stop.signal });
      const changed = await pushedDown(begun.checkpoints[0]!);
      const { lines, result } = await smallRun(gpu, data, recipe, {
        checkpoint: memorySource("pushed", changed),
      });
      ends.push({ dead: result.deadShare, fvu: lately(lines, "fvu") });
    }
    const [without, resampled] = [ends[0]!, ends[1]!];
    const label = JSON.stringify(ends);
    ok(without.dead >= 0.5, label);
    ok(resampled.dead < 0.2, label);
    ok(resampled.fvu < 0.7 * without.fvu, label);
  }
});
