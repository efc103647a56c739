import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import type { QuantizedDtype } from "../../gpu/mod.ts";
import { randomCheckpoint } from "../../tasks/bench_random.ts";
import {
  checkModelPlan,
  longestContext,
  modelMemory,
  type ModelUse,
  planModel,
} from "../../tasks/model_plan.ts";
import { OLMO2_SIZES } from "../../tasks/olmo2_sizes.ts";

type Size = keyof typeof OLMO2_SIZES;

function useOf(
  size: Size,
  quantize?: QuantizedDtype,
  tokens = 4096,
  rows = 1,
): ModelUse {
  const config = OLMO2_SIZES[size];
  const model = { config, checkpoint: randomCheckpoint(config) };
  return { model, quantize, tokens, rows };
}

const total = (use: ModelUse): number =>
  modelMemory(use).reduce((sum, { bytes }) => sum + bytes, 0);

/** The use that flags make of another. */
function changed(use: ModelUse, flags: string): ModelUse {
  const typed = flags.split(" ");
  const quantize = typed[typed.indexOf("--quantize") + 1] as QuantizedDtype;
  const tokens = Number(typed[typed.indexOf("--context") + 1]);
  return {
    ...use,
    ...(typed.includes("--quantize") && { quantize }),
    ...(typed.includes("--context") && { tokens }),
  };
}

Deno.test("modelMemory() counts 7B by hand", () => {
  const rows = Object.fromEntries(
    modelMemory(useOf("7B", undefined, 1000, 2)).map((
      { what, bytes },
    ) => [what, bytes]),
  );
  const d = 4096;
  const norms = 32 * 4 * d * 4 + 4 * d;
  deepEqual(rows, {
    "embedding": 2 * 100_352 * d,
    "32 blocks": 32 * 2 * (4 * d * d + 3 * d * 11_008) + norms +
      4 * 4096 * 128,
    "head": 2 * 100_352 * d,
    // 1008 tokens a row, in pages of 16.
    "keys and values of 2,016 tokens": 2016 * 32 * 2 * d * 4,
    "a pass of 2,000 tokens": 2000 * 4 * (7 * d + 3 * 11_008),
    "logits": 2 * 4 * 100_352,
  });
});

Deno.test("modelMemory() counts 8.5 bits a weight in q8, and 4.5 in q4 but for embedding and head", () => {
  const bf16 = modelMemory(useOf("13B"));
  for (const [type, bits] of [["q8", 8.5], ["q4", 4.5]] as const) {
    const rows = modelMemory(useOf("13B", type));
    const ratio = (i: number) => 16 * rows[i]!.bytes / bf16[i]!.bytes;
    // Scales of a row end at 16 bytes; norms are f32.
    ok(Math.abs(ratio(0) - 8.5) < 0.001);
    ok(Math.abs(ratio(1) - bits) < 0.01, `${ratio(1)}`);
    ok(Math.abs(ratio(2) - 8.5) < 0.001);
    deepEqual(rows.slice(3), bf16.slice(3));
  }
});

Deno.test("longestContext() is the most that fits, in whole pages", () => {
  for (const size of ["1B", "7B", "13B", "32B"] as const) {
    for (const quantize of [undefined, "q8", "q4"] as const) {
      const use = useOf(size, quantize);
      const weights = total({ ...use, tokens: 1 });
      for (const more of [0, 1e8, 1e9, 1e12]) {
        const tokens = longestContext(use, weights + more);
        ok(tokens === 4096 || tokens % 16 === 0);
        if (tokens > 0) ok(total({ ...use, tokens }) <= weights + more);
        if (tokens < 4096) {
          ok(total({ ...use, tokens: tokens + 16 }) > weights + more);
        }
      }
      equal(longestContext(use, 1e6), 0);
    }
  }
});

Deno.test("planModel() refuses what does not fit, with changes that do", () => {
  let nRefused = 0;
  for (const size of ["1B", "7B", "13B", "32B"] as const) {
    for (const quantize of [undefined, "q8", "q4"] as const) {
      for (const gigabytes of [2, 4, 8, 12, 16, 24, 48, 80]) {
        const use = useOf(size, quantize);
        const gpu = gigabytes * 1e9;
        const plan = planModel(use, { gpu, isShared: false });
        equal(plan.bytes, total(use));
        equal(plan.problem === undefined, plan.bytes <= gpu);
        if (plan.problem === undefined) {
          deepEqual(plan.changes, []);
          checkModelPlan(plan);
          continue;
        }
        nRefused++;
        throws(() => checkModelPlan(plan), { name: "RangeError" });
        for (const { flags, bytes } of plan.changes) {
          const other = changed(use, flags);
          equal(bytes, total(other), flags);
          ok(bytes <= gpu, flags);
          ok(other.tokens >= 256, flags);
        }
        // Nothing is offered only where nothing helps.
        const least = total({ ...use, quantize: "q4", tokens: 256 });
        equal(plan.changes.length === 0, least > gpu, `${size} ${gigabytes}`);
      }
    }
  }
  ok(nRefused > 30);
});

Deno.test("checkModelPlan() names the figures and the ways out", () => {
  const card = { gpu: 16e9, isShared: false };
  throws(() => checkModelPlan(planModel(useOf("7B"), card)), {
    message:
      /^Cannot load the model: expected at most 16\.0 GB on the GPU: got 19\.\d GB, the most of it 32 blocks with 13\.\d GB: take --quantize q8 \(12\.\d GB\) or --quantize q4 \(9\.\d+ GB\) or --context \d+ \(1[56]\.\d GB\)$/,
  });
  const small = { gpu: 2e9, isShared: false };
  throws(() => checkModelPlan(planModel(useOf("7B"), small)), {
    message:
      /neither quantization nor a shorter context helps: take another GPU, or a smaller model$/,
  });
  const shared = { gpu: 80e9, host: 8e9, isShared: true };
  const { problem } = planModel(useOf("7B"), shared);
  match(
    problem!,
    /^expected at most 8\.00 GB of memory, which this GPU shares/,
  );
  equal(planModel(useOf("32B"), { isShared: false }).problem, undefined);
});

Deno.test("the table of the README says which model fits where", async () => {
  const readme = await Deno.readTextFile(
    new URL("../../README.md", import.meta.url),
  );
  const lines = readme.split("\n");
  const start = lines.findIndex((line) => /^\| OLMo-2 +\|/.test(line));
  const cells = (line: string): string[] =>
    line.split("|").slice(1, -1).map((cell) => cell.trim());
  const budgets = cells(lines[start]!).slice(2);
  deepEqual(budgets, ["8 GB", "12 GB", "16 GB", "24 GB", "48 GB"]);
  const types = { bf16: undefined, q8: "q8", q4: "q4" } as const;
  const want = Object.keys(OLMO2_SIZES).flatMap((size) =>
    Object.entries(types).map(([name, quantize]) => [
      size,
      name,
      ...budgets.map((budget) => {
        const tokens = longestContext(
          useOf(size as Size, quantize),
          1e9 * parseInt(budget),
        );
        return tokens < 256 ? "–" : `${tokens}`;
      }),
    ])
  );
  const got = lines.slice(start + 2, start + 2 + want.length).map(cells);
  deepEqual(got, want);
});
