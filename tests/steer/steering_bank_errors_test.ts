/** What a bank refuses, and that it goes on as before. */
import assert from "node:assert/strict";
import { SaeFile } from "../../core/sae_file.ts";
import { MAX_STEERED_FEATURES } from "../../kernels/steer.ts";
import { type Intervention, SteeringBank } from "../../steer/interventions.ts";
import { assertClose } from "../assert_close.ts";
import { savedSae } from "../core/sae_for_tests.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { ATOL, pass, single, T, want } from "./steered_passes.ts";
import {
  absolute,
  D_MODEL,
  D_SAE,
  openOther,
  openSae,
} from "./steered_rows.ts";

Deno.test("SteeringBank.run() refuses activations that do not fit", async () => {
  const gpu = await testGpu();
  const { sae } = await openSae();
  using bank = await SteeringBank.open(gpu, single(sae));
  await bank.add([], [{ feature: 3 }, { feature: 4 }]);
  for (const shape of [[T, 1], [T + 1, 2], [T - 1, 2], [T]]) {
    using acts = gpu.tensor("acts", "f32", shape);
    await rejectsInOneLine(
      () => pass(bank, [0, 0, 0], { acts }),
      /^RangeError: Cannot capture activations in acts: f32\[.*\]: expected 3 rows of 2 or more$/,
    );
  }
});

Deno.test("SteeringBank leaves a set as it was when it cannot be replaced, and holds no row for it", async () => {
  const gpu = await testGpu();
  const { sae, weights } = await openSae();
  using bank = await SteeringBank.open(gpu, single(sae));
  const set = [absolute(3, "clamp", 6)];
  await bank.add(set);
  const before = gpu.allocatedBytes;
  const steered = want([set, set, set], weights);
  const refused: [Intervention[], { feature: number }[], RegExp][] = [
    [[absolute(1, "add", 1), absolute(D_SAE, "add", 1)], [], /feature 40: /],
    [[absolute(1, "add", NaN)], [], /finite strength/],
    [[{ ...absolute(7, "add", 1), unit: "maximum" }], [], /never fired/],
    [[absolute(1, "add", 1), absolute(1, "min", 1)], [], /1 twice at once/],
    [
      [absolute(1, "add", 1), { ...absolute(1, "min", 1), layer: 0 }],
      [],
      /feature 1 twice at once after block 0: /,
    ],
    [
      [{ ...absolute(1, "add", 1), after: -1 }],
      [],
      /after .*0 or more: got -1/,
    ],
    [[{ ...absolute(1, "add", 1), after: 0.5 }], [], /after .*: got 0\.5$/],
    [[{ ...absolute(1, "add", 1), decay: 0 }], [], /decay .*1 or more: got 0$/],
    [[{ ...absolute(1, "add", 1), decay: 2 ** 32 }], [], /decay .*: got 4294/],
    [[{ ...absolute(1, "add", 1), layer: NaN }], [], /layer .*: got NaN$/],
    [[], [{ feature: 40 }], /feature 40: /],
    [
      [],
      [{ feature: 2 }, { feature: 2 }],
      /^RangeError: Cannot watch feature 2 twice/,
    ],
  ];
  for (const [interventions, watched, pattern] of refused) {
    await rejectsInOneLine(
      () => bank.replace(0, interventions, watched),
      pattern,
    );
    await rejectsInOneLine(() => bank.add(interventions, watched), pattern);
  }
  await rejectsInOneLine(() => bank.replace(1, set), /^RangeError: .*set 1: /);
  assert.throws(() => bank.remove(1), /^RangeError: .*set 1: /);
  assert.throws(() => bank.watchedOf(1), /^RangeError: .*set 1: /);
  assertClose(await pass(bank, [0, 0, 0]), steered, { atol: ATOL, label: "x" });
  assert.ok(gpu.allocatedBytes - before < 200, "words of a pass only");
});

Deno.test("SteeringBank.add() takes as many features as the kernel does, and refuses more", async () => {
  const gpu = await testGpu();
  const { folder } = await savedSae(5, MAX_STEERED_FEATURES + 1);
  const sae = await SaeFile.open(folder());
  using bank = await SteeringBank.open(gpu, single(sae));
  const all = Array.from(
    { length: MAX_STEERED_FEATURES + 1 },
    (_, i) => absolute(i, "add", 1),
  );
  await rejectsInOneLine(
    () => bank.add(all),
    /^RangeError: Cannot steer or watch 2049 features at once after block 0: expected at most 2048$/,
  );
  await rejectsInOneLine(
    () => bank.add(all.slice(1), [{ feature: 0 }]),
    /^RangeError: Cannot steer or watch 2049 features /,
  );
  await bank.add([{ ...all[0]!, layer: 1 }, ...all.slice(1)]);
});

Deno.test("SteeringBank refuses more rows than a binding holds, and gives back those that it took", async () => {
  using gpu = await testGpu({ maxBindingBytes: 4 * D_MODEL * 20 });
  const { sae } = await openSae();
  using bank = await SteeringBank.open(gpu, single(sae));
  const set = (start: number, n: number) =>
    Array.from({ length: n }, (_, i) => absolute(start + i, "add", 1));
  await bank.add(set(0, 10));
  await rejectsInOneLine(
    () => bank.add(set(5, 16)),
    /^RangeError: Cannot steer 21 features in all sets together: expected at most 20, /,
  );
  // Each beside the one before it, while it is read: room for no other.
  for (const start of [10, 20, 30]) await bank.replace(0, set(start, 10));
  bank.remove(0);
  const all = await bank.add(set(0, 20));
  await bank.replace(all, []);
  const late = bank.replace(all, set(0, 10));
  await Promise.resolve(); // it has begun
  bank.remove(all);
  await rejectsInOneLine(() => late, /^RangeError: Cannot steer by set \d: /);
  await bank.add(set(20, 20));
});

Deno.test("SteeringBank needs thresholds of topk where activations count, watched ones too", async () => {
  const gpu = await testGpu();
  const sae = await openOther({ architecture: "topk", k: 3 });
  using bank = await SteeringBank.open(gpu, single(sae));
  const pattern = /^RangeError: .*expected an inference threshold/;
  const add = [absolute(3, "add", 1)];
  await rejectsInOneLine(() => bank.add(add, [{ feature: 3 }]), pattern);
  await rejectsInOneLine(() => bank.add([], [{ feature: 4 }]), pattern);
  await bank.add(add);
  using linear = await SteeringBank.open(gpu, single(sae), {
    encoding: "linear",
  });
  await linear.add(add, [{ feature: 3 }, { feature: 4 }]);
});

Deno.test("SteeringBank.open() refuses SAEs that do not go together", async () => {
  const gpu = await testGpu();
  const { sae } = await openSae();
  const { folder } = await savedSae(5, 11);
  const narrow = await SaeFile.open(folder());
  const before = gpu.allocatedBytes;
  await rejectsInOneLine(
    () => SteeringBank.open(gpu, []),
    /^RangeError: Cannot steer: expected at least one SAE: got none$/,
  );
  await rejectsInOneLine(
    () => SteeringBank.open(gpu, [...single(sae), ...single(narrow, 1)]),
    /^RangeError: Cannot steer with "sae": expected d_model 100, .*: got 5$/,
  );
  await rejectsInOneLine(
    () => SteeringBank.open(gpu, [...single(sae, 3), ...single(sae, 3)]),
    /^RangeError: .*expected SAEs of different layers: got layer 3 of both$/,
  );
  assert.equal(gpu.allocatedBytes, before);
});

Deno.test("SteeringBank stops reading when it is disposed of meanwhile", async () => {
  const gpu = await testGpu();
  const { sae } = await openSae();
  const before = gpu.allocatedBytes;
  const bank = await SteeringBank.open(gpu, single(sae));
  const adding = bank.add([absolute(3, "add", 1)]);
  bank[Symbol.dispose]();
  await rejectsInOneLine(() => adding, /^Error: Cannot steer: .*disposed of/);
  await gpu.settled();
  assert.equal(gpu.allocatedBytes, before);
});
