/**
 * Small random models with what Hugging Face computes from them.
 * @module
 */
import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { Olmo2 } from "../../core/olmo2.ts";
import { readModelConfig } from "../../core/olmo2_config.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { openCheckpoint, Safetensors } from "../../core/safetensors.ts";
import { safetensorsChunks } from "../../core/safetensors_writer.ts";
import { memoryFolder } from "../../core/source.ts";
import type {
  GenerateOptions,
  GenerateRequest,
  Sampling,
} from "../../steer/generate.ts";
import { type Intervention, SteeringBank } from "../../steer/interventions.ts";
import gqaJson from "../fixtures/olmo2-gqa-bf16-sharded/expected.json" with {
  type: "json",
};
import mhaJson from "../fixtures/olmo2-mha-f32/expected.json" with {
  type: "json",
};
import { randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";

/** A file or folder under tests. */
export const path = (name: string): string =>
  new URL(`../${name}`, import.meta.url).pathname;

/** A model folder with golden values. */
export interface Fixture {
  /** Folder under fixtures. */
  readonly name: string;
  /** The file of 16-bit weights is of a model whose rotary frequencies were cast with them. */
  readonly rope: "f32" | "bf16";
  /** What its steered tensors were computed with. */
  readonly json: {
    steering_layer: number;
    clamps: Readonly<Record<string, number>>;
  };
}

/** All of them. */
export const FIXTURES: readonly Fixture[] = [
  { name: "olmo2-mha-f32", rope: "f32", json: mhaJson },
  { name: "olmo2-gqa-bf16-sharded", rope: "bf16", json: gqaJson },
];
/** The one that takes the least time. */
export const MHA = FIXTURES[0]!;

/** Loads a fixture's model. */
export async function loadModel(
  { name, rope }: Pick<Fixture, "name" | "rope">,
): Promise<Olmo2> {
  const folder = directory(path(`fixtures/${name}`));
  return await Olmo2.load(
    await testGpu(),
    await openCheckpoint(folder),
    await readModelConfig(folder),
    { rope },
  );
}

/** Golden values of a fixture. */
export async function openExpected(name: string): Promise<Safetensors> {
  const folder = directory(path(`fixtures/${name}`));
  return await Safetensors.open(await folder.open("expected.safetensors"));
}

/** The SAE beside a fixture's model, with the clamps that its file was computed with. */
export async function loadBank(
  { name, json }: Fixture,
  encoding: "relu" | "linear" = "relu",
): Promise<SteeringBank> {
  const layer = json.steering_layer;
  const folder = directory(path(`fixtures/${name}`));
  const sae = await SaeFile.open(folder, { layer });
  const set = Object.entries(json.clamps).map((
    [feature, strength],
  ): Intervention => ({
    feature: Number(feature),
    mode: "clamp",
    strength,
    unit: "absolute",
  }));
  return await SteeringBank.load(await testGpu(), sae, [set], {
    layer,
    encoding,
  });
}

/** The prompt of a fixture's greedy reply, and the reply. */
export async function greedyCase(
  name: string,
  prefix = "",
): Promise<{ prompt: number[]; reply: number[] }> {
  const expected = await openExpected(name);
  const prompt = [...await expected.ints("greedy_prompt")];
  const ids = [...await expected.ints(`${prefix}greedy_output`)];
  assert.deepEqual(ids.slice(0, prompt.length), prompt);
  return { prompt, reply: ids.slice(prompt.length) };
}

/** Replies go on to their last token. */
export const NO_STOP: Pick<GenerateOptions, "stopIds"> = { stopIds: [] };
/** Every seed gives another reply. */
export const SAMPLED: Sampling = {
  temperature: 1.5,
  topK: 0,
  topP: 0.95,
  seed: 1,
};

/** Prompts of many lengths, in the vocabulary of every fixture. */
export const PROMPTS = [1, 17, 4, 30, 9, 2, 23].map((length, i) =>
  Array.from({ length }, (_, t) => (7 * i + 13 * t + 2) % 131)
);

/** One request a prompt, each with a seed of its own. */
export const others = (sampling: Sampling): GenerateRequest[] =>
  PROMPTS.map((prompt, i) => ({
    prompt,
    sampling: { ...sampling, seed: 100 + i },
  }));

/** Files of an SAE of two features whose directions are so long that steering by them makes logits infinite. */
export async function hugeSaeFiles(
  d_model: number,
): Promise<Record<string, Uint8Array>> {
  const d_sae = 2;
  const weights = (name: string, shape: number[], scale: number) => {
    const size = shape.reduce((product, n) => product * n, 1);
    const bytes = new Uint8Array(randomNormal(size, 3, scale).buffer);
    return { name, dtype: "F32" as const, shape, bytes };
  };
  const chunks = await Array.fromAsync(safetensorsChunks([
    weights("encode.weight", [d_sae, d_model], 1),
    weights("encode.bias", [d_sae], 1),
    weights("decode.weight", [d_model, d_sae], 1e30),
    weights("decode.bias", [d_model], 1),
  ]));
  const config = { input_size: d_model, hidden_size: d_sae };
  return {
    "sae_config.json": new TextEncoder().encode(JSON.stringify(config)),
    "sae_weights.safetensors": new Uint8Array(
      await new Blob(chunks as Uint8Array<ArrayBuffer>[]).arrayBuffer(),
    ),
  };
}

/** The same in memory, to be applied after block 1. */
export async function hugeSae(d_model: number): Promise<SaeFile> {
  const files = await hugeSaeFiles(d_model);
  return await SaeFile.open(memoryFolder("huge", files), { layer: 1 });
}
