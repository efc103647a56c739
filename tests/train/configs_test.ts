import { deepEqual, equal, ok } from "node:assert/strict";
import { mergeConfig, parseFlags } from "../../core/flags.ts";
import { planTraining } from "../../tasks/memory_plan.ts";
import { recipeOf } from "../../tasks/recipe_flags.ts";
import { TRAIN } from "../../tasks/train.ts";
import type { SaeRecipe } from "../../train/recipe.ts";
import { trainingMemory } from "../../train/training_tensors.ts";

const FOLDER = new URL("../../train/configs/", import.meta.url);

/** Binding of most cards. */
const BINDING = 2 ** 31 - 2 ** 16;

/** Features, and the least card that holds the run, in GB, with a tenth of it left over. */
const CONFIGS: readonly [name: string, d_sae: number, cardGB: number][] = [
  ["8k", 8192, 4],
  ["16k", 16_384, 4],
  ["32k", 32_768, 8],
  ["65k", 65_536, 16],
  ["131k", 131_072, 24],
  ["262k", 262_144, 32],
  ["524k", 524_288, 80],
  ["1m", 1_048_576, 141],
];

function readFlags(
  name: string,
  ...argv: string[]
): { json: Record<string, unknown>; recipe: SaeRecipe } {
  const file = new URL(`${name}.json`, FOLDER);
  const json = JSON.parse(Deno.readTextFileSync(file));
  const config = mergeConfig(TRAIN.flags, json, name);
  const flags = parseFlags(
    TRAIN.flags,
    ["--residuals=r", "--out=o", ...argv],
    { name: "train", description: "", config },
  );
  if ("help" in flags) throw new Error("got help");
  return { json, recipe: recipeOf(flags) };
}

Deno.test("every config is a recipe by the flags of train, and there is none that no test knows", () => {
  const files = Array.from(Deno.readDirSync(FOLDER), ({ name }) => name);
  deepEqual(
    files.sort(),
    [...CONFIGS.map(([name]) => `${name}.json`), "tiny-olmo2.json"].sort(),
  );
  for (const [name, d_sae] of CONFIGS) {
    const { recipe } = readFlags(name);
    equal(recipe.d_sae, d_sae);
    equal(recipe.batch * recipe.accumulate, 4096, name);
    equal(recipe.lambdaWarmup, 0.05);
    equal(recipe.lrDecay, 0.2);
    equal(recipe.deadAfter, 10_000_000);
  }
  equal(readFlags("tiny-olmo2").recipe.d_sae, 1536);
});

Deno.test("every config fits the card it is for, and no smaller one of the usual sizes", () => {
  const cards = [4, 8, 12, 16, 24, 32, 48, 80, 96, 141];
  for (const [name, , cardGB] of CONFIGS) {
    const { recipe } = readFlags(name);
    const { gpuBytes, hostBytes, problem } = planTraining(
      {
        recipe,
        d_model: 4096,
        nVectors: 600_000_000,
        memoryOf: (recipe) =>
          trainingMemory({ ...recipe, d_model: 4096, inputScale: 1 }, BINDING),
      },
      { maxStorageBufferBindingSize: BINDING },
      { gpu: cardGB * 1e9, host: 16e9, isShared: false },
    );
    equal(problem, undefined, name);
    const least = cards.find((gigabytes) => gpuBytes <= 0.9e9 * gigabytes);
    equal(least, cardGB, `${name}: ${gpuBytes} bytes`);
    ok(hostBytes <= 8.6e9, `${name}: ${hostBytes} bytes of vectors`);
  }
});

Deno.test("every value of a config is overridable by a flag", () => {
  for (const name of [...CONFIGS.map(([name]) => name), "tiny-olmo2"]) {
    const { json } = readFlags(name);
    for (const [key, value] of Object.entries(json)) {
      const other = otherValue(key, value);
      const flag = `--${key.replaceAll("_", "-")}=${other}`;
      const flags = parseFlags(
        TRAIN.flags,
        ["--residuals=r", "--out=o", flag],
        {
          name: "train",
          description: "",
          config: mergeConfig(TRAIN.flags, json, name),
        },
      );
      const expected = { ...json, [key]: other };
      for (const [key, value] of Object.entries(expected)) {
        equal(flags[key as keyof typeof flags], value, `${name} with ${flag}`);
      }
    }
  }
});

function otherValue(key: string, value: unknown): number | string {
  if (key === "architecture") return "topk";
  if (key === "moments") return value === "f32" ? "q8" : "f32";
  const n = Number(value);
  return n > 0 && n < 1 ? n / 2 : n + 1;
}
