/**
 * `verify`: does this GPU compute it right?
 * @module
 */
// deno-lint-ignore-file no-console
import { basename, dirname, join } from "node:path";
import type { Check } from "../core/check.ts";
import { directory } from "../core/files.ts";
import { Safetensors } from "../core/safetensors.ts";
import { type Folder, readJson } from "../core/source.ts";
import type { Gpu } from "../gpu/mod.ts";
import { checkModel } from "../steer/model_checks.ts";
import { checkSampling } from "../steer/sampling_checks.ts";
import { replayTraining } from "../train/replay.ts";
import {
  GPU_FLAGS,
  modelDirectory,
  repoPath,
  runTask,
  type TaskContext,
  userPath,
} from "./cli.ts";
import { formatTable } from "./format.ts";

/** A table of the report. */
interface Part {
  readonly title: string;
  readonly checks: readonly Check[];
}

/** Where the built-in golden files are, and the model folders that they belong to. */
const GOLDEN = "tests/fixtures";
const GOLDEN_MODELS = [
  [`${GOLDEN}/olmo2-mha-f32`, `${GOLDEN}/olmo2-mha-f32`],
  [`${GOLDEN}/olmo2-gqa-bf16-sharded`, `${GOLDEN}/olmo2-gqa-bf16-sharded`],
  ["models/tiny-olmo2", `${GOLDEN}/tiny-olmo2`],
] as const;

async function verifyModel(
  gpu: Gpu,
  model: Folder,
  expectedFolder: Folder,
  file: string,
): Promise<Part> {
  const expected = await Safetensors.open(await expectedFolder.open(file));
  const jsonFile = file.replace(/\.safetensors$/, ".json");
  const json = await expectedFolder.has(jsonFile)
    ? await readJson(await expectedFolder.open(jsonFile))
    : {};
  const { checks, rope } = await checkModel(gpu, model, expected, json);
  const note = rope === "bf16"
    ? " (reference with rotary frequencies rounded to bf16, as model.to(bfloat16) does)"
    : "";
  return { title: `${basename(expectedFolder.name)}${note}`, checks };
}

async function goldenParts(gpu: Gpu, context: TaskContext): Promise<Part[]> {
  using progress = context.progress({
    label: "verify",
    unit: "parts",
    total: GOLDEN_MODELS.length + 2,
  });
  const parts: Part[] = [];
  const add = (part: Part) => progress.update(parts.push(part));
  for (const [model, expected] of GOLDEN_MODELS) {
    const folder = directory(repoPath(expected));
    add(
      await verifyModel(
        gpu,
        directory(repoPath(model)),
        folder,
        "expected.safetensors",
      ),
    );
  }
  const sampling = await directory(repoPath(`${GOLDEN}/sampling`)).open(
    "expected.safetensors",
  );
  add({
    title: "sampling",
    checks: await checkSampling(gpu, await Safetensors.open(sampling)),
  });
  add({
    title: "sae-l1: training",
    checks: await replayTraining(gpu, directory(repoPath(`${GOLDEN}/sae-l1`))),
  });
  return parts;
}

function printParts(parts: readonly Part[]): void {
  for (const { title, checks } of parts) {
    const rows = checks.map(({ name, error, limit, ok }) => [
      name,
      error.toExponential(1),
      limit.toExponential(0),
      ok ? "ok" : "FAILED",
    ]);
    console.log(
      `${title}\n${
        formatTable(["check", "relative error", "limit", ""], rows)
      }\n`,
    );
  }
}

if (import.meta.main) {
  await runTask({
    name: "verify",
    description:
      "does this GPU compute it right? Compares with golden files of Hugging Face and PyTorch",
    flags: {
      model: {
        type: "string",
        help:
          "folder or repository id of a model to compare, with --expected; the built-in golden checks without it",
      },
      expected: {
        type: "string",
        help:
          "safetensors file with input_ids, attention_mask, logits, resid_post.N, …; settings in the .json beside it",
      },
      train: {
        type: "string",
        help:
          "folder with steps.safetensors and steps.json: training steps to replay",
      },
      json: { default: false, help: "print JSON" },
      ...GPU_FLAGS,
    },
  }, async (config, context) => {
    const { model, expected, train } = config;
    if ((model === undefined) !== (expected === undefined)) {
      throw new TypeError(
        "Cannot verify a model: expected both --model and --expected: got one of them",
      );
    }
    const gpu = await context.openGpu(config.gpu);
    const parts: Part[] = [];
    if (model !== undefined && expected !== undefined) {
      const path = userPath(expected);
      parts.push(
        await verifyModel(
          gpu,
          await modelDirectory(model),
          directory(dirname(path)),
          basename(path),
        ),
      );
    }
    if (train !== undefined) {
      const folder = userPath(train);
      parts.push({
        title: join(basename(folder), "steps"),
        checks: await replayTraining(gpu, directory(folder)),
      });
    }
    if (parts.length === 0) parts.push(...await goldenParts(gpu, context));
    const failed = parts.flatMap(({ checks }) =>
      checks
    ).filter(({ ok }) => !ok).length;
    if (config.json) {
      console.log(
        JSON.stringify({ gpu: gpu.name, ok: failed === 0, parts }, null, 2),
      );
    } else {
      printParts(parts);
      const total = parts.reduce((sum, { checks }) => sum + checks.length, 0);
      console.log(
        failed === 0
          ? `${gpu.name}: all ${total} checks ok`
          : `${gpu.name}: ${failed} of ${total} checks FAILED`,
      );
    }
    return failed === 0 ? 0 : 1;
  });
}
