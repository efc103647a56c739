import { deepEqual, ok } from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import {
  saeColumnGradients,
  saeColumnGradientsBf16,
} from "../../kernels/sae_column_gradients.ts";
import { saeColumnSums } from "../../kernels/sae_column_sums.ts";
import { saeColumnThresholds } from "../../kernels/sae_column_thresholds.ts";
import { assertClose } from "../assert_close.ts";
import { ints, ODD, rowsOf, sizeOf, sortedCase } from "./entry_cases.ts";
import { launchAll } from "./launch_all.ts";
import { floats, poisoned, seededTest } from "./run_kernel.ts";

/** What a value is before something is added: nothing, whatever memory held, where it is not touched. */
function before(touched: number, value: number): number {
  return touched === 0 ? 0 : value;
}

seededTest(
  "sae_column_sums matches float64, ages what does not fire, and leaves alone what has no entries",
  async (draw) => {
    const { c, byFeature, touched, tensors, runs } = sortedCase(draw, ODD);
    const norms = draw(c.d_sae).map(Math.abs);
    norms[7] = 0;
    const old = draw(c.d_sae).map((v, i) => touched[i] === 0 ? NaN : v);
    const waited = Uint32Array.from(
      { length: c.d_sae },
      (_, i) => i === 9 ? 2 ** 32 - 3 : i,
    );
    const l1 = 0.3;
    for (const tokens of [0, c.B]) {
      for (const window of c.windows) {
        const size = sizeOf(window);
        const got = await launchAll(saeColumnSums, {
          ...tensors,
          runs: runs(window),
          norms: floats([size], rowsOf(norms, 1, window)),
          db_enc: floats([size], rowsOf(old, 1, window)),
          l1_coef: poisoned([size]),
          touched: ints([size], rowsOf(touched, 1, window)),
          tokens_since_fired: ints([size], rowsOf(waited, 1, window)),
        }, [{ values: { block0: window.block0, tokens, l1 } }]);
        const features = [...Array(size).keys()].map((i) => window.start + i);
        const sum = (
          i: number,
          term: (entry: { act: number; dact: number }) => number,
        ): number =>
          byFeature[i]!.filter(({ act }) => act > 0).reduce(
            (sum, entry) => sum + term(entry),
            0,
          );
        assertClose(
          got.db_enc.floats,
          features.map((i) =>
            before(touched[i]!, old[i]!) + sum(i, ({ dact }) => dact)
          ),
          { atol: 2e-5, label: "db_enc" }, // up to 131 terms of size 1
        );
        const has = features.filter((i) => byFeature[i]!.length > 0);
        assertClose(
          has.map((i) => got.l1_coef.floats[i - window.start]!),
          has.map((i) =>
            norms[i] === 0 ? 0 : l1 * sum(i, ({ act }) => act) / norms[i]!
          ),
          { rtol: 1e-5, label: "l1_coef" },
        );
        deepEqual(
          [...got.touched.ints],
          features.map((i) =>
            byFeature[i]!.length === 0
              ? touched[i]
              : Math.min(2, touched[i]! + 1)
          ),
        );
        deepEqual(
          [...got.tokens_since_fired.ints],
          features.map((i) =>
            tokens === 0
              ? waited[i]
              : sum(i, () => 1) > 0
              ? 0
              : Math.min(2 ** 32 - 1, waited[i]! + tokens)
          ),
        );
      }
    }
  },
);

for (
  const [LANES, d_model, shape, dtype] of [
    [8, 28, ODD, "f32"],
    [8, 132, { B: 37, sizes: [320, 7] }, "f32"], // two workgroups a feature
    [64, 1028, { B: 9, sizes: [64, 7] }, "bf16"], // likewise
    [8, 28, ODD, "bf16"],
  ] as const
) {
  seededTest(
    `sae_column_gradients matches float64 with ${LANES} lanes, d_model ${d_model} and x in ${dtype}, and leaves rows without entries alone`,
    async (draw) => {
      const { c, byFeature, touched, tensors, runs } = sortedCase(draw, shape);
      // The marks are those that sae_column_sums has left.
      const marks = touched.map((mark) => Math.min(2, mark + 1));
      const n = c.d_sae * d_model;
      const [W_dec, oldDec, oldEnc, l1_coef] = [
        draw(n),
        draw(n),
        draw(n),
        draw(c.d_sae),
      ];
      const stale = (old: Float32Array<ArrayBuffer>) =>
        old.map((v, at) => marks[Math.floor(at / d_model)] === 2 ? v : NaN);
      const [dec, enc] = [stale(oldDec), stale(oldEnc)];
      const [err, x] = [draw(c.B * d_model), draw(c.B * d_model)];
      const [mean, scale] = [0.25, 0.75];
      const packed = f32ToBf16(x);
      if (dtype === "bf16") x.set(bf16ToF32(packed));
      for (const window of c.windows) {
        const size = sizeOf(window);
        const part = (matrix: Float32Array<ArrayBuffer>) =>
          floats([size, d_model], rowsOf(matrix, d_model, window));
        const shared = {
          ...tensors,
          runs: runs(window),
          touched: ints([size], rowsOf(marks, 1, window)),
          l1_coef: floats([size], rowsOf(l1_coef, 1, window)),
          err: floats([c.B, d_model], err),
          x: dtype === "bf16"
            ? { dtype, shape: [c.B, d_model], values: packed }
            : floats([c.B, d_model], x),
          W_dec: part(W_dec),
          dW_dec: part(dec),
          dW_enc: part(enc),
        };
        const launches = [{
          values: { block0: window.block0, mean, scale, LANES },
        }];
        const got = dtype === "bf16"
          ? await launchAll(saeColumnGradientsBf16, shared, launches)
          : await launchAll(saeColumnGradients, shared, launches);
        for (let i = window.start; i < window.end; i++) {
          const at = i - window.start;
          const row = (values: Float32Array) =>
            values.slice(at * d_model, (at + 1) * d_model);
          const [gotDec, gotEnc] = [
            row(got.dW_dec.floats),
            row(got.dW_enc.floats),
          ];
          const entries = byFeature[i]!;
          if (entries.length === 0) {
            const own = { start: i, end: i + 1 };
            deepEqual([...gotDec], [...rowsOf(dec, d_model, own)]);
            deepEqual([...gotEnc], [...rowsOf(enc, d_model, own)]);
            continue;
          }
          const want = (old: Float32Array, term: (j: number) => number) =>
            Float64Array.from(
              { length: d_model },
              (_, j) => (marks[i] === 2 ? old[i * d_model + j]! : 0) + term(j),
            );
          // Up to 131 terms of size 1.
          assertClose(
            gotDec,
            want(
              oldDec,
              (j) =>
                entries.reduce(
                  (sum, { b, act }) => sum + mean * act * err[b * d_model + j]!,
                  0,
                ) +
                l1_coef[i]! * W_dec[i * d_model + j]!,
            ),
            { atol: 3e-5, label: `dW_dec of ${i}` },
          );
          assertClose(
            gotEnc,
            want(
              oldEnc,
              (j) =>
                entries.reduce(
                  (sum, { b, act, dact }) =>
                    sum + (act > 0 ? scale * dact * x[b * d_model + j]! : 0),
                  0,
                ),
            ),
            { atol: 5e-5, label: `dW_enc of ${i}` },
          );
        }
      }
    },
  );
}

seededTest(
  "sae_column_thresholds matches float64 within the band, marks below the threshold included",
  async (draw) => {
    const { c, byFeature, touched, tensors, runs } = sortedCase(draw, ODD);
    const thresholds = draw(c.d_sae).map((v) => Math.abs(v) + 0.2);
    const old = draw(c.d_sae).map((v, i) => touched[i] === 0 ? NaN : v);
    const [bandwidth, weight] = [0.8, 0.3];
    let nIn = 0;
    let nOut = 0;
    for (const window of c.windows) {
      const size = sizeOf(window);
      const { dlog } = await launchAll(saeColumnThresholds, {
        ...tensors,
        runs: runs(window),
        thresholds: floats([size], rowsOf(thresholds, 1, window)),
        touched: ints([size], rowsOf(touched, 1, window)),
        dlog: floats([size], rowsOf(old, 1, window)),
      }, [{ values: { block0: window.block0, bandwidth, weight } }]);
      const want = Array.from({ length: size }, (_, at) => {
        const i = window.start + at;
        const threshold = thresholds[i]!;
        let sum = 0;
        for (const { act, dact } of byFeature[i]!) {
          // The top in f32, as an act may lie on it by its bits only there.
          const isIn = act <
            Math.fround(
              threshold + Math.fround(0.5 * Math.fround(bandwidth)),
            );
          isIn ? nIn++ : nOut++;
          if (isIn) sum += threshold * dact + weight;
        }
        return before(touched[i]!, old[i]!) - threshold / bandwidth * sum;
      });
      // Up to 131 terms of size 1 and a factor of 5.
      assertClose(dlog.floats, want, { atol: 2e-4, label: "dlog" });
    }
    ok(nIn > 100 && nOut > 100);
  },
);
