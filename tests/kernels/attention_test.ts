import assert from "node:assert/strict";
import { PAGE_TOKENS } from "../../core/kv_cache.ts";
import {
  attention,
  attentionPlan,
  planAttention,
} from "../../kernels/attention.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  attentionReference,
  type AttentionSizes,
} from "../reference/olmo2_reference.ts";
import {
  type Draw,
  floats,
  poisoned,
  seededTest,
  uploadAll,
  words,
} from "./run_kernel.ts";
import {
  type Place,
  scatter,
  type Scattered,
  SIZES,
} from "./scattered_pages.ts";

/** All ways to attend. */
const PLANS = {
  "registers of 1 token": ["registers", 1],
  "registers of 8 tokens": ["registers", 8],
  tiles: ["tiles", 64],
  wide: ["wide", 1],
} as const;
type PlanName = keyof typeof PLANS;
const NAMES = Object.keys(PLANS) as PlanName[];

/** Runs attention one way. */
async function attend(
  name: PlanName,
  places: readonly Place[],
  { table, pagesPerRow, nSlots }: Omit<Scattered, "slotsOf">,
  { d_q, d_kv, d_head }: AttentionSizes,
  values: Readonly<Record<"q" | "K" | "V", Float32Array<ArrayBuffer>>>,
): Promise<Float32Array> {
  const gpu = await testGpu();
  const T = places.length;
  const [kind, blockTokens] = PLANS[name];
  const plan = attentionPlan(
    kind,
    blockTokens,
    Uint32Array.from(places.flat()),
  );
  using owned = new DisposableStack();
  const tensors = uploadAll(gpu, owned, {
    q: floats([T, d_q], values.q),
    K: floats([nSlots, d_kv], values.K),
    V: floats([nSlots, d_kv], values.V),
    blocks: words([plan.nBlocks, 4], plan.blocks),
    pages: words([table.length / pagesPerRow, pagesPerRow], table),
    z: poisoned([T, d_q]),
  });
  const sizes = { d_head, pageTokens: PAGE_TOKENS };
  gpu.record(name, (rec) => attention(rec, tensors, plan, sizes));
  return await gpu.read(tensors.z);
}

/** Attends one way and compares it with float64. */
async function checkAttention(
  name: PlanName,
  draw: Draw,
  sizes: AttentionSizes,
  places: readonly Place[],
): Promise<void> {
  const { d_q, d_kv, d_head } = sizes;
  const T = places.length;
  const scattered = scatter(draw, places);
  const { nSlots, slotsOf } = scattered;
  const q = draw(T * d_q, 2);
  const [K, V] = [draw(nSlots * d_kv), draw(nSlots * d_kv)];
  // Slots that no token sees must not matter.
  const isSeen = new Set(places.flatMap(slotsOf));
  for (let slot = 0; slot < nSlots; slot++) {
    if (isSeen.has(slot)) continue;
    for (const x of [K, V]) x.fill(NaN, slot * d_kv, (slot + 1) * d_kv);
  }
  const got = await attend(name, places, scattered, sizes, { q, K, V });
  const want = places.flatMap((place, t) => [
    ...attentionReference(
      q.subarray(t * d_q, (t + 1) * d_q),
      K,
      V,
      slotsOf(place),
      sizes,
    ),
  ]);
  // Scores, up to 20, are off by some 20 · 2⁻²², so weights by 5e-6 of themselves; z is a mean of V, up to 4.
  assertClose(got, want, {
    atol: 2e-5,
    label: `z by ${name} (d_head ${d_head})`,
    shape: [T, d_q],
  });
}

/** Tokens of one row from a position on. */
function run(row: number, position: number, n: number): Place[] {
  return Array.from({ length: n }, (_, i) => [row, position + i]);
}

for (const name of NAMES) {
  seededTest(
    `attention by ${name} matches float64 for grouped heads and ragged rows on scattered pages`,
    async (draw) => {
      const places = [
        ...run(0, 0, 2),
        ...run(2, 12, 1),
        ...run(2, 3, 1),
        ...run(4, 0, 9),
        ...run(3, 33, 1),
        ...run(3, 15, 3),
        ...run(1, 40, 11),
      ];
      for (const sizes of SIZES) {
        await checkAttention(name, draw, sizes, places);
      }
    },
  );

  seededTest(
    `attention by ${name} matches float64 over hundreds of keys`,
    async (draw) => {
      const places = [...run(1, 230, 70), ...run(0, 555, 1)];
      await checkAttention(name, draw, SIZES[1]!, places);
    },
  );

  seededTest(
    `attention by ${name} matches float64 for heads of 128 and 256`,
    async (draw) => {
      const places = [...run(0, 0, 40), ...run(1, 600, 1)];
      for (const d_head of [128, 256]) {
        const sizes = { d_q: 5 * d_head, d_kv: d_head, d_head };
        await checkAttention(name, draw, sizes, places);
      }
    },
  );
}

seededTest(
  "attention keeps what is not finite from earlier tokens of a pass",
  async (draw) => {
    const sizes = SIZES[1]!;
    const { d_q, d_kv } = sizes;
    const places = run(0, 30, 20);
    const scattered = scatter(draw, places);
    const n = scattered.nSlots * d_kv;
    const [q, K, V] = [draw(places.length * d_q), draw(n), draw(n)];
    const bad = 37;
    for (const x of [K, V]) {
      const slot = scattered.slotsOf([0, bad]).at(-1)!;
      x.fill(NaN, slot * d_kv, (slot + 1) * d_kv);
    }
    for (const name of NAMES) {
      const z = await attend(name, places, scattered, sizes, { q, K, V });
      for (const [t, [, position]] of places.entries()) {
        const row = z.subarray(t * d_q, (t + 1) * d_q);
        const isFinite = row.every(Number.isFinite);
        assert.equal(isFinite, position < bad, `${name}, position ${position}`);
      }
    }
  },
);

seededTest(
  "attention matches float64 over more keys than the loops of a software driver may take",
  async (draw) => {
    // So many heads, all alike, that keys are not split for the sake of cores.
    const [d_head, heads] = [128, 128];
    const sizes = { d_q: heads * d_head, d_kv: d_head, d_head };
    const places = run(0, 17_000, 1);
    const scattered = scatter(draw, places);
    const one = draw(d_head);
    const q = Float32Array.from(
      { length: sizes.d_q },
      (_, i) => one[i % d_head]!,
    );
    const [K, V] = [
      draw(scattered.nSlots * d_head),
      draw(scattered.nSlots * d_head),
    ];
    const slots = scattered.slotsOf(places[0]!);
    const want = attentionReference(one, K, V, slots, {
      ...sizes,
      d_q: d_head,
    });
    const name = "registers of 8 tokens";
    const got = await attend(name, places, scattered, sizes, { q, K, V });
    assertClose(got, Array(heads).fill([...want]).flat(), {
      atol: 1e-6,
      label: `z by ${name}`,
      shape: [heads, d_head],
    });
  },
);

seededTest(
  "attention stays finite when scores are in the thousands",
  async (draw) => {
    const sizes = SIZES[0]!;
    const places = run(0, 8, 1);
    const cache = {
      nSlots: PAGE_TOKENS,
      pagesPerRow: 1,
      table: new Uint32Array(1),
    };
    const K = draw(cache.nSlots * 16, 100);
    const V = draw(cache.nSlots * 16);
    const q = draw(16, 100);
    const want = attentionReference(q, K, V, [...Array(9).keys()], sizes);
    for (const name of NAMES) {
      const got = await attend(name, places, cache, sizes, { q, K, V });
      // A score of 1e4 is off by up to 1e-2, and near ties follow it.
      assertClose(got, want, { atol: 3e-2, label: `z by ${name}` });
    }
  },
);

Deno.test("planAttention() lets tokens of a row share keys where there are enough of them", () => {
  const plan = (isSoftware: boolean, places: readonly Place[]) => {
    const { kind, blocks, blockTokens, nKeys } = planAttention(
      { isSoftware },
      Uint32Array.from(places.flat()),
    );
    return [kind, blockTokens, nKeys, ...blocks];
  };
  const prompt = [...run(3, 5, 10), ...run(3, 20, 6), ...run(1, 21, 2)];
  assert.deepEqual(
    plan(true, prompt),
    // deno-fmt-ignore
    ["registers", 8, 26, 0, 8, 3, 5, 8, 2, 3, 13, 10, 6, 3, 20, 16, 2, 1, 21],
  );
  const steps = [...run(2, 7, 1), ...run(0, 3, 1), ...run(1, 4, 1)];
  const alone = [0, 1, 2, 7, 1, 1, 0, 3, 2, 1, 1, 4];
  assert.deepEqual(plan(true, steps), ["registers", 1, 8, ...alone]);
  assert.deepEqual(plan(false, steps), ["wide", 1, 8, ...alone]);
  assert.deepEqual(
    plan(false, run(0, 0, 100)),
    ["tiles", 64, 100, 0, 64, 0, 0, 64, 36, 0, 64],
  );
});
