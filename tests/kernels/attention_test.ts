import { PAGE_TOKENS } from "../../core/kv_cache.ts";
import { attention } from "../../kernels/attention.ts";
import { attentionWide } from "../../kernels/attention_wide.ts";
import { qkNormRope } from "../../kernels/qk_norm_rope.ts";
import { assertClose } from "../assert_close.ts";
import {
  attentionReference,
  type AttentionSizes,
  rmsNormReference,
  ropeReference,
} from "../reference/olmo2_reference.ts";
import {
  type Draw,
  floats,
  poisoned,
  runKernel,
  seededTest,
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

/** Runs one of the attention kernels and compares it with float64. */
async function checkAttention(
  kernel: typeof attention | typeof attentionWide,
  draw: Draw,
  sizes: AttentionSizes,
  places: readonly Place[],
): Promise<void> {
  const { d_q, d_kv, d_head } = sizes;
  const T = places.length;
  const { nSlots, pagesPerRow, table, slotsOf } = scatter(draw, places);
  const q = draw(T * d_q, 2);
  const [K, V] = [draw(nSlots * d_kv), draw(nSlots * d_kv)];
  // Slots that no token sees must not matter.
  const isSeen = new Set(places.flatMap(slotsOf));
  for (let slot = 0; slot < nSlots; slot++) {
    if (isSeen.has(slot)) continue;
    for (const x of [K, V]) x.fill(NaN, slot * d_kv, (slot + 1) * d_kv);
  }
  const { z } = await runKernel(kernel, {
    q: floats([T, d_q], q),
    K: floats([nSlots, d_kv], K),
    V: floats([nSlots, d_kv], V),
    places: words([T, 2], places.flat()),
    pages: words([table.length / pagesPerRow, pagesPerRow], table),
    z: poisoned([T, d_q]),
  }, { D4: d_head / 4, PAGE_TOKENS, scale: 1 / Math.sqrt(d_head) });
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
  assertClose(z!, want, {
    atol: 2e-5,
    label: `z of ${kernel.name} (d_head ${d_head})`,
    shape: [T, d_q],
  });
}

for (const kernel of [attention, attentionWide]) {
  seededTest(
    `${kernel.name} matches float64 for grouped heads and ragged rows on scattered pages`,
    async (draw) => {
      const places = [
        [0, 0],
        [0, 1],
        [2, 12],
        [2, 3],
        [4, 0],
        [
          3,
          33,
        ],
        [3, 15],
        [3, 16],
      ] as const;
      for (const sizes of SIZES) {
        await checkAttention(kernel, draw, sizes, places);
      }
    },
  );

  seededTest(
    `${kernel.name} matches float64 over 300 keys and 70 tokens`,
    async (draw) => {
      const places = Array.from(
        { length: 70 },
        (_, t) => [1, 230 + t] as const,
      );
      await checkAttention(kernel, draw, SIZES[1]!, places);
    },
  );
}

seededTest(
  "attention stays finite when scores are in the thousands",
  async (draw) => {
    const sizes = SIZES[0]!;
    const [T, slots] = [2, PAGE_TOKENS];
    const K = draw(slots * 16, 100);
    const V = draw(slots * 16);
    const q = draw(T * 16, 100);
    const seen = [...Array(9).keys()];
    const want = [...Array(T).keys()].flatMap((t) => [
      ...attentionReference(
        q.subarray(16 * t, 16 * t + 16),
        K,
        V,
        seen,
        sizes,
      ),
    ]);
    for (const kernel of [attention, attentionWide]) {
      const { z } = await runKernel(kernel, {
        q: floats([T, 16], q),
        K: floats([slots, 16], K),
        V: floats([slots, 16], V),
        places: words([T, 2], [0, 8, 0, 8]),
        pages: words([1, 1], [0]),
        z: poisoned([T, 16]),
      }, { D4: 1, PAGE_TOKENS, scale: 0.5 });
      // A score of 1e4 is off by up to 1e-2, and near ties follow it.
      assertClose(z!, want, { atol: 3e-2, label: `z of ${kernel.name}` });
    }
  },
);
