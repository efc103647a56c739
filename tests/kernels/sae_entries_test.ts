import { deepEqual, ok } from "node:assert/strict";
import { saeDecodeEntries } from "../../kernels/sae_decode_entries.ts";
import { saeEntryDots } from "../../kernels/sae_entry_dots.ts";
import { saeEntryGradients } from "../../kernels/sae_entry_gradients.ts";
import { assertClose } from "../assert_close.ts";
import {
  entryCase,
  ints,
  listsOf,
  listTensors,
  NONE,
  ODD,
  rowsOf,
  sizeOf,
} from "./entry_cases.ts";
import { launchAll } from "./launch_all.ts";
import { floats, poisoned, seededTest } from "./run_kernel.ts";

for (
  const [LANES, d_model, shape] of [
    [8, 28, ODD],
    [8, 240, { B: 9, sizes: [64, 7] }], // the last of a lane's columns are past the end
    [8, 260, { B: 9, sizes: [64, 7] }], // two workgroups a row
    [64, 2052, { B: 5, sizes: [64, 7] }], // likewise
  ] as const
) {
  seededTest(
    `sae_decode_entries matches float64 over windows with ${LANES} lanes and d_model ${d_model}, and adds`,
    async (draw) => {
      const c = entryCase(draw, shape);
      const { B, d_sae, nTiles, acts } = c;
      const lists = listsOf(c);
      const [W_dec, b_dec, x] = [
        draw(d_sae * d_model),
        draw(d_model),
        draw(B * d_model),
      ];
      const { entries, row_start } = listTensors(lists);
      const windows = (adds: boolean) =>
        c.windows.map((window) => ({
          tensors: {
            W_dec: floats(
              [sizeOf(window), d_model],
              rowsOf(W_dec, d_model, window),
            ),
          },
          values: {
            LANES,
            start: window.start,
            tile0: window.tile0,
            tile1: window.tile1,
            adds: Number(adds || window.start > 0),
          },
        }));
      const sums = Float64Array.from({ length: B * d_model }, (_, at) => {
        const [b, j] = [Math.floor(at / d_model), at % d_model];
        let sum = 0;
        for (let i = 0; i < d_sae; i++) {
          sum += acts[b * d_sae + i]! * W_dec[i * d_model + j]!;
        }
        return sum;
      });
      for (const adds of [false, true]) {
        const start = adds
          ? draw(B * d_model)
          : poisoned([B * d_model]).values as Float32Array<ArrayBuffer>;
        const { err } = await launchAll(saeDecodeEntries, {
          entries,
          tile_starts: ints([nTiles, B], lists.starts),
          row_start,
          b_dec: floats([d_model], b_dec),
          x: floats([B, d_model], x),
          err: floats([B, d_model], start),
        }, windows(adds));
        const want = sums.map((sum, at) =>
          sum + (adds ? start[at]! : b_dec[at % d_model]! - x[at]!)
        );
        // A full row has 709 terms of size 1: sums up to 100, each rounded to 6e-8 of it.
        assertClose(err.floats, want, {
          atol: 1e-3,
          label: "err",
          shape: [B, d_model],
        });
      }
    },
  );
}

seededTest(
  "sae_decode_entries lets activations that are not finite through to the error",
  async (draw) => {
    const c = entryCase(draw, { B: 3, sizes: [40] });
    c.acts[3] = NaN;
    c.acts[40 + 39] = Infinity;
    const lists = listsOf(c);
    const { entries, row_start } = listTensors(lists);
    const { err } = await launchAll(saeDecodeEntries, {
      entries,
      tile_starts: ints([c.nTiles, 3], lists.starts),
      row_start,
      W_dec: floats([40, 8], draw(320)),
      b_dec: floats([8], draw(8)),
      x: floats([3, 8], draw(24)),
      err: poisoned([3, 8]),
    }, [{
      values: { LANES: 8, start: 0, tile0: 0, tile1: c.nTiles, adds: 0 },
    }]);
    deepEqual(
      Array.from(err.floats, Number.isFinite),
      Array.from({ length: 24 }, (_, at) => at >= 16),
    );
  },
);

for (const d_model of [28, 260]) {
  seededTest(
    `sae_entry_gradients and sae_entry_dots match float64 for d_model ${d_model}`,
    async (draw) => {
      const c = entryCase(draw, ODD);
      const { B, d_sae } = c;
      const lists = listsOf(c);
      const [W_dec, err, weights] = [
        draw(d_sae * d_model),
        draw(B * d_model),
        draw(d_sae),
      ];
      const total = lists.rowStart[B]!;
      const [mean, weight] = [0.125, 0.3];
      const want = Float64Array.from({ length: total }, (_, e) => {
        const feature = lists.entries[2 * e]!;
        if (feature === NONE) return 0;
        let dot = 0;
        for (let j = 0; j < d_model; j++) {
          dot += err[lists.entryRows[e >> 2]! * d_model + j]! *
            W_dec[feature * d_model + j]!;
        }
        return mean * dot + weight * weights[feature]!;
      });
      for (const kernel of [saeEntryGradients, saeEntryDots]) {
        const { dacts } = await launchAll(
          kernel,
          {
            ...listTensors(lists),
            err: floats([B, d_model], err),
            dacts: poisoned([total + 5]),
          },
          c.windows.map((window) => ({
            tensors: {
              W_dec: floats(
                [sizeOf(window), d_model],
                rowsOf(W_dec, d_model, window),
              ),
              weights: floats([sizeOf(window)], rowsOf(weights, 1, window)),
            },
            values: { start: window.start, mean, weight },
          })),
        );
        // Places of entries of no feature are not written.
        const isEntry = (e: number): boolean => lists.entries[2 * e] !== NONE;
        ok(
          dacts.floats.every((v, e) =>
            (e < total && isEntry(e)) !== Number.isNaN(v)
          ),
        );
        // Sums of 260 products of size 1.
        assertClose(
          dacts.floats.slice(0, total).map((v, e) => isEntry(e) ? v : 0),
          want,
          { atol: 1e-5, label: kernel.name },
        );
      }
    },
  );
}
