import assert from "node:assert/strict";
import { PAGE_TOKENS } from "../../core/kv_cache.ts";
import {
  attention,
  attentionPlan,
  planAttention,
} from "../../kernels/attention.ts";
import { qkNormRope } from "../../kernels/qk_norm_rope.ts";
import { assertClose } from "../assert_close.ts";
import {
  attentionReference,
  type AttentionSizes,
  rmsNormReference,
  ropeReference,
} from "../reference/olmo2_reference.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  type Draw,
  floats,
  poisoned,
  runKernel,
  seededTest,
  uploadAll,
  words,
} from "./run_kernel.ts";

const SIZES: readonly AttentionSizes[] = [
  { d_q: 16, d_kv: 16, d_head: 4 },
  { d_q: 72, d_kv: 24, d_head: 12 },
  { d_q: 160, d_kv: 80, d_head: 80 },
];

/** cos and sin of position · 10000^(-2i/d_head), `[positions, d_head / 2, 2]`. */
function ropeTable(
  positions: number,
  d_head: number,
): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: positions * d_head }, (_, at) => {
    const [position, j] = [Math.floor(at / d_head), at % d_head];
    const angle = position * 1e4 ** (-2 * (j >> 1) / d_head);
    return j % 2 === 0 ? Math.cos(angle) : Math.sin(angle);
  });
}

/** A row of the cache and a position in it. */
type Place = readonly [row: number, position: number];

/** Pages of a cache, scattered at random: some belong to no row. */
interface Scattered {
  readonly nSlots: number;
  readonly pagesPerRow: number;
  /** u32 `[rows, pagesPerRow]`; entries that no token needs lead to a page of no row. */
  readonly table: Uint32Array<ArrayBuffer>;
  /** Slots of a token's keys, in the order of positions. */
  slotsOf(place: Place): number[];
}

/** Gives the rows of some tokens pages in random order, among others that are not theirs. */
function scatter(draw: Draw, places: readonly Place[]): Scattered {
  const nRows = 1 + Math.max(...places.map(([row]) => row));
  const counts = Array.from({ length: nRows }, (_, row) =>
    Math.max(
      0,
      ...places.filter(([at]) => at === row).map(([, position]) =>
        Math.floor(position / PAGE_TOKENS) + 1
      ),
    ));
  const nPages = counts.reduce((sum, n) => sum + n) + 3;
  const keys = draw(nPages);
  const order = [...keys.keys()].sort((a, b) => keys[a]! - keys[b]!);
  const pagesPerRow = Math.max(...counts) + 1;
  const table = new Uint32Array(nRows * pagesPerRow).fill(order.at(-1)!);
  for (const [row, n] of counts.entries()) {
    table.set(order.splice(0, n), row * pagesPerRow);
  }
  const slot = (row: number, s: number) =>
    table[row * pagesPerRow + Math.floor(s / PAGE_TOKENS)]! * PAGE_TOKENS +
    s % PAGE_TOKENS;
  return {
    nSlots: nPages * PAGE_TOKENS,
    pagesPerRow,
    table,
    slotsOf: ([row, position]) =>
      Array.from({ length: position + 1 }, (_, s) => slot(row, s)),
  };
}

seededTest(
  "qkNormRope() norms, turns and files keys in their slots",
  async (draw) => {
    const eps = 1e-6;
    const places = [[0, 0], [0, 1], [3, 4], [1, 18], [4, 40]] as const;
    const [T, positions] = [places.length, 41];
    const { nSlots: slots, pagesPerRow, table, slotsOf } = scatter(
      draw,
      places,
    );
    for (const { d_q, d_kv, d_head } of SIZES) {
      const d_qkv = d_q + 2 * d_kv;
      const [qkv, norm] = [draw(T * d_qkv, 3), draw(d_q + d_kv)];
      const rope = ropeTable(positions, d_head);
      const [K, V] = [draw(slots * d_kv), draw(slots * d_kv)];
      const got = await runKernel(qkNormRope, {
        qkv: floats([T, d_qkv], qkv),
        qk_norm: floats([d_q + d_kv], norm),
        rope: floats([positions, d_head], rope),
        places: words([T, 2], places.flat()),
        pages: words([table.length / pagesPerRow, pagesPerRow], table),
        q: poisoned([T, d_q]),
        K: floats([slots, d_kv], K),
        V: floats([slots, d_kv], V),
      }, { d_head, eps, PAGE_TOKENS });
      const want = { q: new Float64Array(T * d_q), K: [...K], V: [...V] };
      for (const [t, place] of places.entries()) {
        const position = place[1];
        const row = qkv.subarray(t * d_qkv, (t + 1) * d_qkv);
        const turns = rope.subarray(position * d_head, (position + 1) * d_head);
        const turned = (from: number, to: number) =>
          ropeReference(
            rmsNormReference(
              row.subarray(from, to),
              norm.subarray(from, to),
              eps,
            ),
            turns,
          );
        want.q.set(turned(0, d_q), t * d_q);
        const slot = slotsOf(place).at(-1)! * d_kv;
        want.K.splice(slot, d_kv, ...turned(d_q, d_q + d_kv));
        want.V.splice(slot, d_kv, ...row.subarray(d_q + d_kv));
      }
      // Values up to 25, norms within 1.2e-6 of that, and three roundings of two products. V is copied.
      const limits = { q: 5e-5, K: 5e-5, V: 0 };
      for (const name of ["q", "K", "V"] as const) {
        const width = name === "q" ? d_q : d_kv;
        const shape = [want[name].length / width, width];
        const label = `${name} (d_head ${d_head})`;
        assertClose(got[name]!, want[name], {
          atol: limits[name],
          label,
          shape,
        });
      }
    }
  },
);

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
