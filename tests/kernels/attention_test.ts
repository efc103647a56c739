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

seededTest(
  "qkNormRope() norms, turns and files keys in their slots",
  async (draw) => {
    const eps = 1e-6;
    const places = [[0, 0], [0, 1], [9, 4], [4, 2], [20, 10]] as const;
    const [T, slots, positions] = [places.length, 33, 11];
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
        q: poisoned([T, d_q]),
        K: floats([slots, d_kv], K),
        V: floats([slots, d_kv], V),
      }, { d_head, eps });
      const want = { q: new Float64Array(T * d_q), K: [...K], V: [...V] };
      for (const [t, [base, position]] of places.entries()) {
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
        const slot = (base + position) * d_kv;
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
  places: readonly (readonly [base: number, position: number])[],
  slots: number,
): Promise<void> {
  const { d_q, d_kv, d_head } = sizes;
  const T = places.length;
  const q = draw(T * d_q, 2);
  const [K, V] = [draw(slots * d_kv), draw(slots * d_kv)];
  // Slots that no token sees must not matter.
  const isSeen = new Set(
    places.flatMap(([base, position]) =>
      Array.from({ length: position + 1 }, (_, s) => base + s)
    ),
  );
  for (let slot = 0; slot < slots; slot++) {
    if (isSeen.has(slot)) continue;
    for (const x of [K, V]) x.fill(NaN, slot * d_kv, (slot + 1) * d_kv);
  }
  const { z } = await runKernel(kernel, {
    q: floats([T, d_q], q),
    K: floats([slots, d_kv], K),
    V: floats([slots, d_kv], V),
    places: words([T, 2], places.flat()),
    z: poisoned([T, d_q]),
  }, { D4: d_head / 4, scale: 1 / Math.sqrt(d_head) });
  const want = places.flatMap((place, t) => [
    ...attentionReference(
      q.subarray(t * d_q, (t + 1) * d_q),
      K,
      V,
      place,
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
    `${kernel.name} matches float64 for grouped heads and ragged rows`,
    async (draw) => {
      const places = [[0, 0], [0, 1], [2, 12], [2, 3], [20, 0], [
        15,
        4,
      ]] as const;
      for (const sizes of SIZES) {
        await checkAttention(kernel, draw, sizes, places, 23);
      }
    },
  );

  seededTest(
    `${kernel.name} matches float64 over 300 keys and 70 tokens`,
    async (draw) => {
      const places = Array.from(
        { length: 70 },
        (_, t) => [5, 230 + t] as const,
      );
      await checkAttention(kernel, draw, SIZES[1]!, places, 310);
    },
  );
}

seededTest(
  "attention stays finite when scores are in the thousands",
  async (draw) => {
    const sizes = SIZES[0]!;
    const [T, slots] = [2, 9];
    const K = draw(slots * 16, 100);
    const V = draw(slots * 16);
    const q = draw(T * 16, 100);
    const want = [...Array(T).keys()].flatMap((t) => [
      ...attentionReference(
        q.subarray(16 * t, 16 * t + 16),
        K,
        V,
        [0, 8],
        sizes,
      ),
    ]);
    for (const kernel of [attention, attentionWide]) {
      const { z } = await runKernel(kernel, {
        q: floats([T, 16], q),
        K: floats([slots, 16], K),
        V: floats([slots, 16], V),
        places: words([T, 2], [0, 8, 0, 8]),
        z: poisoned([T, 16]),
      }, { D4: 1, scale: 0.5 });
      // A score of 1e4 is off by up to 1e-2, and near ties follow it.
      assertClose(z!, want, { atol: 3e-2, label: `z of ${kernel.name}` });
    }
  },
);
