import { deepEqual, ok } from "node:assert/strict";
import { saeAuxScale } from "../../kernels/sae_aux_scale.ts";
import { saeCountDead } from "../../kernels/sae_count_dead.ts";
import { saeSmallestKept } from "../../kernels/sae_smallest_kept.ts";
import { STATUS_WORDS } from "../../kernels/sae_step_status.ts";
import { saeThresholdGradients } from "../../kernels/sae_threshold_gradients.ts";
import { saeThresholds } from "../../kernels/sae_thresholds.ts";
import { scaleBy } from "../../kernels/scale_by.ts";
import { squareParts } from "../../kernels/sum_squares.ts";
import { sumRowSquares } from "../../kernels/sum_row_squares.ts";
import { assertClose } from "../assert_close.ts";
import { ints } from "./entry_cases.ts";
import { launchAll } from "./launch_all.ts";
import {
  type Draw,
  floats,
  poisoned,
  runKernel,
  seededTest,
  words,
} from "./run_kernel.ts";

function sumOf(values: ArrayLike<number>, term = (v: number): number => v) {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += term(values[i]!);
  return sum;
}

seededTest(
  "sae_thresholds matches the exponential in float64",
  async (draw) => {
    const logs = draw(131, 3);
    const { thresholds } = await runKernel(saeThresholds, {
      log_thresholds: floats([131], logs),
      thresholds: poisoned([131]),
    });
    // WGSL's exp may be off by (3 + 2·|x|) ulp: 2.5e-6 for |x| up to 18.
    assertClose(thresholds!, Array.from(logs, Math.exp), {
      rtol: 3e-6,
      label: "thresholds",
    });
  },
);

seededTest(
  "sae_threshold_gradients matches float64 within the band, and takes the gradient from marks below the threshold",
  async (draw) => {
    const [B, window] = [37, 131];
    const [bandwidth, weight] = [0.8, 0.3];
    const thresholds = draw(window).map((v) => Math.abs(v) + 0.2);
    const acts = draw(B * window).map((v) =>
      Math.abs(v) < 0.4 ? -0 : v < 0 ? 0 : v
    );
    for (let b = 0; b < B; b++) acts[b * window + 9] = 0;
    const dact = draw(B * window);
    const touched = Uint32Array.from({ length: window }, (_, i) => i % 3);
    const old = draw(window).map((v, i) => touched[i] === 0 ? NaN : v);
    const got = await launchAll(saeThresholdGradients, {
      acts: floats([B, window], acts),
      thresholds: floats([window], thresholds),
      touched: ints([window], touched),
      dact: floats([B, window], dact),
      dlog: floats([window], old),
    }, [{ values: { bandwidth, weight } }]);
    const half = Math.fround(0.5 * Math.fround(bandwidth));
    const want = Array.from(thresholds, (threshold, i) => {
      let sum = 0;
      for (let at = i; at < B * window; at += window) {
        const isEntry = !Object.is(acts[at], 0);
        const isIn = acts[at]! < Math.fround(threshold + half);
        if (isEntry && isIn) sum += threshold * dact[at]! + weight;
      }
      const before = touched[i] === 0 ? 0 : old[i]!;
      return before - threshold / bandwidth * sum;
    });
    assertClose(got.dlog.floats, want, { atol: 1e-4, label: "dlog" }); // 37 terms and a factor of 5
    deepEqual(
      [...got.dact.floats],
      Array.from(dact, (v, at) => Object.is(acts[at], -0) ? 0 : v),
    );
  },
);

/** AuxK's scale of random squares; `mean` is scaled so that its part of the variance is a share of it. */
async function auxScale(
  draw: Draw,
  { share, nEntries, adds }: {
    readonly share: number;
    readonly nEntries: number;
    readonly adds: boolean;
  },
) {
  const [d_model, n, B] = [150, 131, 37];
  // Columns 0 and 3 are another's and count for nothing.
  const squares = draw(4 * n).map((v, at) =>
    at % 4 === 0 || at % 4 === 3 ? v * 1e6 : v * v
  );
  const column = (k: number): number =>
    sumOf(squares.filter((_, at) => at % 4 === k));
  const mean = draw(d_model);
  const square = sumOf(mean, (v) => v * v);
  const scale = Math.sqrt(share * column(1) / B / square);
  const scaled = mean.map((v) => v * scale);
  const { aux } = await runKernel(saeAuxScale, {
    mean: floats([d_model], scaled),
    squares: floats([n, 4], squares),
    row_start: words([4], [4, 4, 8, nEntries]),
    aux: floats([4], Float32Array.of(NaN, adds ? 5 : NaN, 7, 8)),
  }, { B, most: 8, adds: Number(adds), factor: 3, share: 0.25 });
  const variance = column(1) / B - sumOf(scaled, (v) => v * v);
  return { aux: aux!, variance, rest: column(2) / B };
}

for (const adds of [false, true]) {
  seededTest(
    `sae_aux_scale matches float64${adds ? ", and adds to the loss" : ""}`,
    async (draw) => {
      const got = await auxScale(draw, { share: 0.4, nEntries: 4, adds });
      const { aux, variance, rest } = got;
      const loss = (adds ? 5 : 0) + 0.25 * rest / variance;
      assertClose(aux.slice(0, 2), [3 / variance, loss], {
        rtol: 1e-5,
        label: "aux",
      });
      deepEqual([...aux.slice(2)], [7, 8]);
    },
  );

  seededTest(
    `sae_aux_scale adds nothing without entries, with too many, or without variance${
      adds ? ", to a loss that is there" : ""
    }`,
    async (draw) => {
      for (
        const [share, nEntries] of [[0.4, 0], [0.4, 12], [1.5, 4]] as const
      ) {
        const { aux } = await auxScale(draw, { share, nEntries, adds });
        deepEqual([...aux], [0, adds ? 5 : 0, 7, 8]);
      }
    },
  );
}

for (const n of [1, 4099, 65_536 * 64 + 5]) {
  seededTest(`scale_by multiplies ${n} values`, async (draw) => {
    const some = draw(101);
    const values = Float32Array.from({ length: n }, (_, i) => some[i % 101]!);
    const got = await runKernel(scaleBy, {
      factor: floats([4], Float32Array.of(-0.5, NaN, NaN, NaN)),
      values: floats([n], values),
    });
    // A power of 2: exact.
    ok(got.values!.every((value, i) => value === -0.5 * some[i % 101]!));
  });
}

seededTest(
  "sae_count_dead adds what has waited long enough, in any number of windows",
  async (draw) => {
    const least = 4_000_000_000;
    const windows = [1003, 64, 1].map((size) =>
      Uint32Array.from(draw(size), (v) => least + Math.trunc(10 * v))
    );
    const { dead } = await launchAll(
      saeCountDead,
      { dead: words([1], [5]) },
      windows.map((waited) => ({
        tensors: { waited: ints([waited.length], waited) },
        values: { dead_after: least },
      })),
    );
    const isDead = (waited: number): boolean => waited >= least;
    const want = windows.flatMap((waited) => [...waited]).filter(isDead).length;
    deepEqual([...dead.ints], [5 + want]);
  },
);

for (const slots of [1, 131]) {
  seededTest(
    `sae_smallest_kept follows the least threshold above 0 of ${slots} slots`,
    async (draw) => {
      const thresholds = draw(slots).map((v) => Math.abs(v) + 0.5);
      if (slots > 9) thresholds.fill(0, 3, 9).fill(Infinity, 9, 12);
      const bits = new Uint32Array(thresholds.buffer);
      const pairs = Uint32Array.from(
        { length: 2 * slots },
        (_, at) => at % 2 ? 1 : bits[at / 2]!,
      );
      const smallest = Math.min(...thresholds.filter((v) => v > 0));
      const follow = async (
        before: number,
        { isBad = false, thresholds = pairs } = {},
      ): Promise<number> => {
        const status = new Uint32Array(STATUS_WORDS);
        status[6] = isBad ? 4 : 0;
        const { average } = await runKernel(saeSmallestKept, {
          thresholds: ints([slots, 2], thresholds),
          status: ints([STATUS_WORDS], status),
          average: floats([1], Float32Array.of(before)),
        }, { decay: 0.75, rest: 0.25 });
        return average![0]!;
      };
      deepEqual(await follow(0), smallest); // the first as it is
      assertClose([await follow(2)], [1.5 + 0.25 * smallest], {
        rtol: 1e-6,
        label: "average",
      });
      deepEqual(await follow(2, { isBad: true }), 2);
      // Nothing was kept, or nothing that is finite.
      const none = pairs.map((word, at) => at % 2 ? word : 0);
      deepEqual(await follow(2, { thresholds: none }), 2);
      none[0] = 0x7f80_0000;
      deepEqual(await follow(2, { thresholds: none }), 2);
    },
  );
}

for (
  const [rows, columns, nParts] of [
    [67, 28, squareParts(67 * 28)],
    [131, 260, squareParts(131 * 260)],
    [5, 4, 3], // more parts than runs
  ] as const
) {
  seededTest(
    `sum_row_squares adds up the touched of ${rows} rows of ${columns} in ${nParts} parts, and reads no other`,
    async (draw) => {
      const touched = Uint32Array.from({ length: rows }, (_, i) => i % 3);
      const isTouched = (at: number): boolean =>
        touched[Math.floor(at / columns)] !== 0;
      const values = draw(rows * columns).map((v, at) =>
        isTouched(at) ? v : NaN
      );
      const run = async (): Promise<Float32Array> => {
        const { partials } = await runKernel(sumRowSquares, {
          values: floats([rows, columns], values),
          touched: ints([rows], touched),
          partials: poisoned([nParts + 3, 4]),
        }, { n_parts: nParts, slot: 2, column: 1 });
        return partials!;
      };
      const partials = await run();
      const parts = partials.slice(8, 8 + 4 * nParts);
      const column = (k: number): Float32Array =>
        parts.filter((_, at) => at % 4 === k);
      const want = sumOf(values.filter((_, at) => isTouched(at)), (v) => v * v);
      assertClose([sumOf(column(1))], [want], { rtol: 1e-6, label: "Σ²" });
      for (const k of [0, 2, 3]) ok(column(k).every((v) => v === 0));
      const around = [
        ...partials.slice(0, 8),
        ...partials.slice(8 + 4 * nParts),
      ];
      ok(around.every(Number.isNaN));
      deepEqual([...await run()], [...partials]); // the same bits
    },
  );
}

seededTest(
  "sum_row_squares shows a value of a touched row that is not finite",
  async (draw) => {
    const values = draw(3 * 8);
    values[11] = Infinity;
    const { partials } = await runKernel(sumRowSquares, {
      values: floats([3, 8], values),
      touched: words([3], [1, 1, 0]),
      partials: poisoned([1, 4]),
    }, { n_parts: 1, slot: 0, column: 0 });
    deepEqual([...partials!], [Infinity, 0, 0, 0]);
  },
);
