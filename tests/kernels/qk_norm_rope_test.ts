import { PAGE_TOKENS } from "../../core/kv_cache.ts";
import { qkNormRope } from "../../kernels/qk_norm_rope.ts";
import { assertClose } from "../assert_close.ts";
import {
  rmsNormReference,
  ropeReference,
} from "../reference/olmo2_reference.ts";
import {
  floats,
  poisoned,
  runKernel,
  seededTest,
  words,
} from "./run_kernel.ts";
import { scatter, SIZES } from "./scattered_pages.ts";

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
