/** Sets of a bank that come, change and go. */
import assert from "node:assert/strict";
import { foldSae, SaeFile, saveSae } from "../../core/sae_file.ts";
import type { Folder } from "../../core/source.ts";
import {
  type Intervention,
  parseIntervention,
  SteeringBank,
} from "../../steer/interventions.ts";
import { assertClose, poison } from "../assert_close.ts";
import {
  METADATA,
  randomWeights,
  writableFolder,
} from "../core/sae_for_tests.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { ATOL, pass, single, T, want, X } from "./steered_passes.ts";
import {
  absolute,
  D_MODEL,
  D_SAE,
  MAXIMUM,
  openOther,
  openSae,
} from "./steered_rows.ts";

/** The SAE of openSae(), which counts the reads of its files. */
async function countedSae(): Promise<{ sae: SaeFile; reads: () => number }> {
  const { folder } = await openSae();
  let nReads = 0;
  const counting: Folder = {
    name: "counted",
    has: (file) => folder.has(file),
    list: () => folder.list(),
    open: async (file) => {
      const source = await folder.open(file);
      return {
        name: source.name,
        byteLength: source.byteLength,
        read: (start, end) => {
          nReads++;
          return source.read(start, end);
        },
      };
    },
  };
  return { sae: await SaeFile.open(counting), reads: () => nReads };
}

Deno.test("SteeringBank.replace() takes effect with the next pass, and reads no row that is there", async () => {
  const gpu = await testGpu();
  const { weights } = await openSae();
  const { sae, reads } = await countedSae();
  using bank = await SteeringBank.open(gpu, single(sae));
  const strong = [absolute(3, "clamp", 6), absolute(4, "add", 2)];
  const other = [absolute(9, "min", 3)];
  const a = await bank.add(strong);
  const b = await bank.add(other);
  assert.deepEqual([a, b], [0, 1]);
  using resid = gpu.floats("resid", [T, D_MODEL], X.slice());
  bank.loadPass([a, b, undefined].map((set) => ({ set, n: 0 })));
  gpu.record("before", (rec) => bank.run(rec, 0, resid));
  const before = reads();
  const weak = [absolute(4, "add", -1), absolute(3, "scale", 0.5)];
  const times = (strength: number): Intervention[] => [
    { ...weak[0]!, unit: "maximum", strength },
    weak[1]!,
  ];
  await bank.replace(a, weak);
  assert.equal(reads(), before, "rows are not read again");
  await bank.replace(a, times(3));
  const withMaxima = reads();
  assert.ok(withMaxima > before);
  await bank.replace(a, times(2));
  await bank.replace(a, weak);
  assert.equal(reads(), withMaxima, "maxima are read once");
  assertClose(
    await gpu.read(resid),
    want([strong, other, []], weights),
    { atol: ATOL, label: "the pass that was recorded before" },
  );
  assertClose(
    await pass(bank, [a, b, a]),
    want([weak, other, weak], weights),
    { atol: ATOL, label: "the next pass" },
  );
});

Deno.test("SteeringBank.run() does nothing where the pass that was loaded last has nothing to do", async () => {
  const { sae } = await openSae();
  using bank = await SteeringBank.open(await testGpu(), single(sae));
  const set = await bank.add([absolute(3, "clamp", 6)]);
  const none = await bank.add([]);
  assert.notDeepEqual(await pass(bank, [set, set, set]), X);
  assert.deepEqual(await pass(bank, [undefined, none, undefined]), X);
  await bank.replace(none, [absolute(4, "clamp", 6)]);
  await bank.replace(set, []);
  assert.deepEqual(await pass(bank, [set, set, undefined]), X);
});

Deno.test("SteeringBank takes units of the maximum in replaced sets", async () => {
  const { sae, weights } = await openSae();
  using bank = await SteeringBank.open(await testGpu(), single(sae));
  const set = await bank.add([]);
  await bank.replace(set, [{ ...absolute(3, "clamp", 2), unit: "maximum" }]);
  const same = [absolute(3, "clamp", 2 * MAXIMUM)];
  assertClose(
    await pass(bank, [set, undefined, set]),
    want([same, [], same], weights),
    { atol: ATOL, label: "2x" },
  );
});

Deno.test("SteeringBank keeps sets right while its memory grows, and gives rows of removed ones to others", async () => {
  const gpu = await testGpu();
  const { sae, weights } = await openSae();
  using bank = await SteeringBank.open(gpu, single(sae));
  const sets = [...Array(D_SAE).keys()].map((feature) =>
    [
      absolute(feature, "clamp", 5 - feature / 4),
      absolute((7 * feature + 1) % D_SAE, "add", 1),
    ].filter(({ feature }, i, all) => i === 0 || feature !== all[0]!.feature)
  );
  for (const [i, set] of sets.entries()) {
    assert.equal(await bank.add(set), i);
    // The first sets have been there since there was room for eight rows.
    const some = [0, i >> 1, i];
    assertClose(
      await pass(bank, some),
      want(some.map((set) => sets[set]!), weights),
      { atol: ATOL, label: `${i + 1} sets` },
    );
  }
  const full = gpu.allocatedBytes;
  for (let i = 1; i < D_SAE; i++) bank.remove(i);
  assert.throws(
    () => bank.loadPass([{ set: 1, n: 0 }]),
    /^RangeError: Cannot steer by set 1: expected one of the bank's: got 0$/,
  );
  assert.equal(await bank.add(sets[9]!), D_SAE, "no number is given twice");
  for (let i = 0; i < 3 * D_SAE; i++) {
    const set = await bank.add(sets[i % D_SAE]!);
    if (i % 3 > 0) bank.remove(set);
  }
  assert.equal(gpu.allocatedBytes, full, "rows were free for others");
  const last = await bank.add([]);
  for (let i = 0; i < 3 * D_SAE; i++) {
    await bank.replace(last, sets[i % D_SAE]!);
  }
  assert.equal(gpu.allocatedBytes, full, "so were those of replaced ones");
  assertClose(
    await pass(bank, [0, D_SAE, undefined]),
    want([sets[0]!, sets[9]!, []], weights),
    { atol: ATOL, label: "after removals" },
  );
});

Deno.test("SteeringBank applies one SAE at several layers, and each of several at its own", async () => {
  const gpu = await testGpu();
  const { sae, weights } = await openSae();
  const other = await openOther({ architecture: "relu" });
  const text = (...texts: string[]) =>
    texts.map((one) => parseIntervention(one));
  const here = [absolute(3, "clamp", 4), absolute(5, "add", 1)];
  const there = [absolute(3, "clamp", -2)];
  using one = await SteeringBank.open(gpu, single(sae, 2));
  const set = await one.add(text("3=4", "3@0=-2", "5@2=1:add"));
  assert.deepEqual(one.layers, [0, 2]);
  const at = async (bank: SteeringBank, layer: number) =>
    await pass(bank, [set, undefined, set], { layer });
  const expected = (some: Intervention[]) => want([some, [], some], weights);
  const close = { atol: ATOL, label: "x" };
  assertClose(await at(one, 2), expected(here), close);
  assertClose(await at(one, 0), expected(there), close);
  assert.deepEqual(await at(one, 1), X, "nothing acts there");
  using two = await SteeringBank.open(gpu, [
    { sae, layer: 4 },
    { sae: other, layer: 1 },
  ]);
  await two.add(text("3@4=4", "3@1=-2", "5@4=1:add"));
  assert.deepEqual(two.layers, [1, 4]);
  assertClose(await at(two, 4), expected(here), close);
  // Weights of savedSae() are the same whatever the SAE is called.
  assertClose(await at(two, 1), expected(there), close);
  await two.replace(0, text("3@1=-2"));
  assert.deepEqual(two.layers, [1]);
  for (const layer of ["", "@3"]) {
    await rejectsInOneLine(
      () => two.add(text(`3${layer}=4`)),
      /^RangeError: Cannot steer feature 3(@3)?: expected one of the SAEs' layers behind it, @4 \("sae"\) or @1 \("sae"\): got (none|another)$/,
    );
  }
});

Deno.test("SteeringBank captures the i-th watched feature in slot i, as it is before any change", async () => {
  const gpu = await testGpu();
  const { sae, weights } = await openSae();
  const { W_enc, b_enc } = weights;
  const act = (t: number, feature: number): number => {
    let pre = b_enc![feature]!;
    for (let j = 0; j < D_MODEL; j++) {
      pre += W_enc![feature * D_MODEL + j]! * X[t * D_MODEL + j]!;
    }
    return Math.max(pre, 0);
  };
  using bank = await SteeringBank.open(gpu, single(sae));
  const features = [3, 12, 5, 30];
  const watched = features.map((feature, i) => ({
    feature,
    ...(i === 2 && { layer: 1 }),
  }));
  const acting = [absolute(12, "add", 3), absolute(3, "clamp", 9)];
  const a = await bank.add(acting, watched);
  const b = await bank.add([], [{ feature: 8 }]);
  assert.equal(bank.nSlots, 4);
  assert.deepEqual(bank.watchedOf(a), watched);
  using acts = gpu.floats("acts", [T, 5], poison(5 * T));
  const close = { atol: ATOL, label: "x" };
  const changed = want([acting, [], []], weights);
  assertClose(await pass(bank, [a, b, undefined], { acts }), changed, close);
  const nan = [NaN, NaN, NaN, NaN, NaN];
  const got = [...await gpu.read(acts)];
  const expected = [
    [act(0, 3), act(0, 12), NaN, act(0, 30), NaN],
    [act(1, 8), NaN, NaN, NaN, NaN],
    nan,
  ].flat();
  assert.deepEqual(got.map(Number.isNaN), expected.map(Number.isNaN));
  const known = (values: number[]) => values.filter((v) => !Number.isNaN(v));
  assertClose(known(got), known(expected), { atol: ATOL, label: "acts" });
  await pass(bank, [a, b, a], { acts, layer: 1 });
  const later = await gpu.read(acts);
  assertClose([later[2]!, later[12]!], [act(0, 5), act(2, 5)], {
    atol: ATOL,
    label: "acts of layer 1",
  });
  assertClose(await pass(bank, [a, b, undefined]), changed, close);
  await bank.replace(a, acting);
  assert.equal(bank.nSlots, 1);
  assert.deepEqual(bank.watchedOf(a), []);
  bank.remove(b);
  assert.equal(bank.nSlots, 0);
  assertClose(await pass(bank, [a, undefined, undefined]), changed, close);
});

Deno.test("SteeringBank takes changes in the order of the calls, whatever they wait for", async () => {
  const { sae, weights } = await openSae();
  using bank = await SteeringBank.open(await testGpu(), single(sae));
  const many = Array.from({ length: 30 }, (_, i) => absolute(i, "add", 1));
  const last = [absolute(31, "clamp", 4)];
  const adding = bank.add(many);
  const replacing = [bank.replace(0, many.slice(3)), bank.replace(0, last)];
  const gone = bank.add(many);
  const late = bank.replace(1, last);
  assert.equal(await adding, 0);
  await Promise.all(replacing);
  assert.equal(await gone, 1);
  bank.remove(1); // while it is being replaced
  await rejectsInOneLine(() => late, /^RangeError: Cannot steer by set 1: /);
  assertClose(
    await pass(bank, [0, undefined, 0]),
    want([last, [], last], weights),
    { atol: ATOL, label: "the last one" },
  );
});

Deno.test("SteeringBank tells rows of SAEs apart that share feature numbers", async () => {
  const gpu = await testGpu();
  const { sae, weights } = await openSae();
  const other = randomWeights(2, D_MODEL, D_SAE);
  foldSae(other, METADATA.inputScale);
  const { folder, write } = writableFolder();
  await saveSae(write, { weights: other, metadata: METADATA });
  using bank = await SteeringBank.open(gpu, [
    { sae, layer: 0 },
    { sae: await SaeFile.open(folder()), layer: 1 },
  ]);
  const texts = ["3@0=4", "3@1=4"].map((text) => parseIntervention(text));
  await bank.add(texts);
  const set = [absolute(3, "clamp", 4)];
  const sets = [set, set, set];
  const { W_enc, b_enc, W_dec } = other;
  for (const [layer, some] of [weights, { W_enc, b_enc, W_dec }].entries()) {
    assertClose(
      await pass(bank, [0, 0, 0], { layer }),
      want(sets, some),
      { atol: ATOL, label: `layer ${layer}` },
    );
  }
});
