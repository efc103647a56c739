import assert from "node:assert/strict";
import { Rng } from "../../core/rng.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { saeCompact } from "../../kernels/sae_compact.ts";
import { testGpu } from "../gpu_for_tests.ts";

/** Activations `[T, d_sae]` of which about `share` are not 0; row 1 is empty, row 2 full. */
function randomActs(
  T: number,
  d_sae: number,
  share: number,
): Float32Array<ArrayBuffer> {
  const rng = new Rng(5);
  return Float32Array.from({ length: T * d_sae }, (_, at) => {
    const row = Math.floor(at / d_sae);
    const fires = row === 2 || (row !== 1 && rng.uniform() < share);
    return fires ? rng.uniform() + 0.1 : 0;
  });
}

/** The lists as they must be, `[count, ...features, ...value bits]`; places that are not written are 7. */
function expectedLists(
  acts: Float32Array<ArrayBuffer>,
  d_sae: number,
  cap: number,
): Uint32Array {
  const bits = new Uint32Array(acts.buffer);
  const width = 1 + 2 * cap;
  const T = acts.length / d_sae;
  const lists = new Uint32Array(T * width).fill(7);
  for (let t = 0; t < T; t++) {
    let n = 0;
    for (let i = 0; i < d_sae; i++) {
      if (acts[t * d_sae + i] === 0) continue;
      if (n < cap) {
        lists[t * width + 1 + n] = i;
        lists[t * width + 1 + cap + n] = bits[t * d_sae + i]!;
      }
      n++;
    }
    lists[t * width] = n;
  }
  return lists;
}

/** Runs the kernel over windows of `size` features. */
async function compact(
  gpu: Gpu,
  acts: Float32Array<ArrayBuffer>,
  shape: { d_sae: number; cap: number; size: number },
): Promise<Uint32Array> {
  const { d_sae, cap, size } = shape;
  const T = acts.length / d_sae;
  const width = 1 + 2 * cap;
  using owned = new DisposableStack();
  const before = new Uint32Array(T * width).fill(7);
  const lists = owned.use(gpu.upload("lists", "u32", [T, width], before));
  for (let start = 0; start < d_sae; start += size) {
    const window = Math.min(size, d_sae - start);
    const part = new Float32Array(T * window);
    for (let t = 0; t < T; t++) {
      const first = t * d_sae + start;
      part.set(acts.subarray(first, first + window), t * window);
    }
    const tensor = owned.use(gpu.floats("acts", [T, window], part));
    gpu.record("compact", (rec) => {
      saeCompact.run(rec, { acts: tensor, lists }, { start });
    });
  }
  return await gpu.readInts(lists);
}

for (
  const [T, d_sae] of [[1, 1], [5, 63], [7, 64], [3, 65], [37, 1537]] as const
) {
  Deno.test(`saeCompact() lists what is not 0 in the order of features for [${T}, ${d_sae}]`, async () => {
    const acts = randomActs(T, d_sae, 0.1);
    const shape = { d_sae, cap: d_sae, size: d_sae };
    assert.deepEqual(
      await compact(await testGpu(), acts, shape),
      expectedLists(acts, d_sae, d_sae),
    );
  });
}

Deno.test("saeCompact() counts what it drops when more fires than the cap", async () => {
  const [d_sae, cap] = [301, 20];
  const acts = randomActs(9, d_sae, 0.07);
  const want = expectedLists(acts, d_sae, cap);
  const counts = Array.from({ length: 9 }, (_, t) => want[t * (1 + 2 * cap)]!);
  assert.ok(counts.some((n) => n < cap) && counts.some((n) => n > cap));
  assert.deepEqual(
    await compact(await testGpu(), acts, { d_sae, cap, size: d_sae }),
    want,
  );
});

Deno.test("saeCompact() goes on where the window before ended, cap or not", async () => {
  const d_sae = 301;
  const acts = randomActs(9, d_sae, 0.07);
  for (const cap of [20, 301]) {
    assert.deepEqual(
      await compact(await testGpu(), acts, { d_sae, cap, size: 100 }),
      expectedLists(acts, d_sae, cap),
    );
  }
});

Deno.test("saeCompact() lists NaN and infinity, and neither 0 nor -0", async () => {
  const acts = Float32Array.of(0, NaN, -0, Infinity, 1);
  const [n, ...rest] = await compact(await testGpu(), acts, {
    d_sae: 5,
    cap: 3,
    size: 5,
  });
  assert.equal(n, 3);
  assert.deepEqual(rest.slice(0, 3), [1, 3, 4]);
});
