import { deepEqual, ok } from "node:assert/strict";
import { adamQ8, Q8_BLOCK } from "../../kernels/adam_q8.ts";
import { STATUS_WORDS } from "../../kernels/sae_step_status.ts";
import { assertClose } from "../assert_close.ts";
import { ints, rowsOf } from "./entry_cases.ts";
import { launchAll } from "./launch_all.ts";
import { type Draw, floats, seededTest } from "./run_kernel.ts";

const [BETA1, BETA2, EPS] = [0.9, 0.999, 1e-8];

/** A parameter with its 8-bit moments. */
interface State {
  readonly rows: number;
  /** A multiple of 4. */
  readonly columns: number;
  readonly W: Float32Array<ArrayBuffer>;
  /** Four codes in a word. */
  readonly m: Uint32Array<ArrayBuffer>;
  readonly v: Uint32Array<ArrayBuffer>;
  /** For each block its scale of m and of v. */
  readonly scales: Float32Array<ArrayBuffer>;
}

/** What a step needs besides. */
interface Step {
  readonly grad: Float32Array<ArrayBuffer>;
  readonly touched: Uint32Array<ArrayBuffer>;
  /** 1 when absent. */
  readonly clip?: number;
  readonly isBad?: boolean;
  /** Number of the first step, 0 when absent. */
  readonly step?: number;
  /** Steps in a row; 1 when absent. */
  readonly steps?: number;
  /** First row of the window. */
  readonly start?: number;
}

const blocksOf = (columns: number): number => Math.ceil(columns / Q8_BLOCK);

/** All moments 0. */
function zeros(rows: number, columns: number, draw: Draw): State {
  return {
    rows,
    columns,
    W: draw(rows * columns),
    m: new Uint32Array(rows * columns / 4),
    v: new Uint32Array(rows * columns / 4),
    scales: new Float32Array(rows * blocksOf(columns) * 2),
  };
}

const UPDATE = {
  beta1: BETA1,
  rest1: 1 - BETA1,
  beta2: BETA2,
  rest2: 1 - BETA2,
  step_size: 0.01,
  v_scale: 3,
  eps: EPS,
};

/** The state after a step, or after a few with the same gradient. */
async function adam(state: State, options: Step): Promise<State> {
  const { rows, columns } = state;
  const { grad, touched, clip = 1, isBad = false, start = 0 } = options;
  const { step = 0, steps = 1 } = options;
  const status = new Uint32Array(STATUS_WORDS);
  status[5] = new Uint32Array(Float32Array.of(clip).buffer)[0]!;
  status[6] = Number(isBad);
  const got = await launchAll(
    adamQ8,
    {
      grad: floats([rows, columns], grad),
      touched: ints([rows], touched),
      status: ints([STATUS_WORDS], status),
      m: ints([rows, columns / 4], state.m),
      v: ints([rows, columns / 4], state.v),
      scales: floats([rows, 2 * blocksOf(columns)], state.scales),
      W: floats([rows, columns], state.W),
    },
    Array.from(
      { length: steps },
      (_, t) => ({ values: { ...UPDATE, start, step: step + t } }),
    ),
  );
  return {
    rows,
    columns,
    W: got.W.floats,
    m: got.m.ints,
    v: got.v.ints,
    scales: got.scales.floats,
  };
}

/** The moments that codes stand for, and the distance to the next code on either side. */
function decode({ rows, columns, m, v, scales }: State) {
  const n = rows * columns;
  const [codesM, codesV] = [new Uint8Array(m.buffer), new Uint8Array(v.buffer)];
  const scale = (at: number, moment: number): number => {
    const row = Math.floor(at / columns);
    const block = Math.floor(at % columns / Q8_BLOCK);
    return scales[2 * (row * blocksOf(columns) + block) + moment]!;
  };
  const values = (value: (at: number) => number): Float64Array =>
    Float64Array.from({ length: n }, (_, at) => value(at));
  const ofM = (c: number): number => Math.sign(c) * (c / 127) ** 2;
  const ofV = (c: number): number => (c / 255) ** 4;
  return {
    codesV,
    m: values((at) => ofM(codesM[at]! - 128) * scale(at, 0)),
    v: values((at) => ofV(codesV[at]!) * scale(at, 1)),
    gapM: values((at) => {
      const c = Math.abs(codesM[at]! - 128);
      return (ofM(c + 1) - ofM(c)) * scale(at, 0);
    }),
    gapV: values((at) =>
      (ofV(codesV[at]! + 1) - ofV(codesV[at]!)) * scale(at, 1)
    ),
  };
}

/** Moments of random size, by a first step from 0. */
function warm(draw: Draw, rows: number, columns: number): Promise<State> {
  return adam(zeros(rows, columns, draw), {
    grad: draw(rows * columns),
    touched: new Uint32Array(rows).fill(1),
  });
}

/** Two blocks a row, of which the second has 12 numbers; lanes of a workgroup lie past its end. */
const [ROWS, COLUMNS] = [5, 268];

seededTest(
  "adam_q8 steps as Adam in float64 does, and keeps moments to a code; a row that is not touched has no gradient",
  async (draw) => {
    const touched = Uint32Array.of(1, 0, 2, 0, 1);
    let state = zeros(ROWS, COLUMNS, draw);
    for (const step of [0, 1, 2]) {
      const grad = draw(ROWS * COLUMNS).map((g, at) =>
        touched[Math.floor(at / COLUMNS)] === 0 && step > 0 ? NaN : g
      );
      const before = decode(state);
      const { W } = state;
      const clip = 0.5;
      state = await adam(state, {
        grad,
        touched: step === 0 ? touched.map(() => 1) : touched,
        clip,
        step,
      });
      const after = decode(state);
      const g = Float64Array.from(grad, (v) => Number.isNaN(v) ? 0 : clip * v);
      const m = before.m.map((v, at) => BETA1 * v + (1 - BETA1) * g[at]!);
      const v = before.v.map((v, at) => BETA2 * v + (1 - BETA2) * g[at]! ** 2);
      const want = Float64Array.from(
        m,
        (first, at) => W[at]! - 0.01 * first / (Math.sqrt(v[at]!) * 3 + EPS),
      );
      assertClose(state.W, want, { atol: 1e-6, rtol: 1e-6, label: "W" });
      for (
        const [label, got, exact, gap] of [
          ["m", after.m, m, after.gapM],
          ["v", after.v, v, after.gapV],
        ] as const
      ) {
        const far = exact.findIndex((value, at) =>
          !(Math.abs(got[at]! - value) <= 1.0001 * gap[at]!)
        );
        ok(far < 0, `${label}[${far}]: ${got[far]} of ${exact[far]}`);
      }
      // The scales are the largest of each block.
      const largest = new Float64Array(state.scales.length);
      for (let at = 0; at < m.length; at++) {
        const block = Math.floor(at / COLUMNS) * 2 +
          Math.floor(at % COLUMNS / Q8_BLOCK);
        largest[2 * block] = Math.max(largest[2 * block]!, Math.abs(m[at]!));
        largest[2 * block + 1] = Math.max(largest[2 * block + 1]!, v[at]!);
      }
      assertClose(state.scales, largest, { rtol: 1e-6, label: "scales" });
    }
  },
);

seededTest(
  "adam_q8 rounds without a bias, whatever the size of a moment",
  async (draw) => {
    const [rows, columns] = [64, 256];
    // Codes of m between whole ones, and of v twice as large: 8 rows of one size each, but for the first of a row, which gives the scale.
    const codes = [0.75, 1.25, 2.75, 5.25, 9.75, 20.25, 50.75, 100.25];
    const sizeOf = (at: number): number =>
      at % columns === 0
        ? 1
        : (codes[Math.floor(at / columns / 8)]! / 127) ** 2;
    const grad = Float32Array.from(
      { length: rows * columns },
      (_, at) => -sizeOf(at),
    );
    const { m, v, gapM, gapV } = decode(
      await adam(zeros(rows, columns, draw), {
        grad,
        touched: new Uint32Array(rows).fill(1),
      }),
    );
    for (const [k, code] of codes.entries()) {
      const own = (values: Float64Array): Float64Array =>
        values.filter((_, at) =>
          at % columns !== 0 && Math.floor(at / columns / 8) === k
        );
      const size = (code / 127) ** 2;
      for (
        const [values, gaps, want] of [
          [own(m), own(gapM), -(1 - BETA1) * size],
          [own(v), own(gapV), (1 - BETA2) * size ** 2],
        ] as const
      ) {
        const n = values.length;
        const mean = values.reduce((sum, value) => sum + value, 0) / n;
        // A rounding strays by half a gap at most; the mean of n is 5 of its standard deviations off once in a million.
        const limit = 5 * 0.5 / Math.sqrt(n) * Math.max(...gaps);
        ok(Math.abs(mean - want) <= limit, `${mean} instead of ${want}`);
      }
    }
  },
);

seededTest(
  "adam_q8 lets moments that change by less than a code move as they should",
  async (draw) => {
    const [rows, columns, steps] = [64, 256, 300];
    const touched = new Uint32Array(rows).fill(1);
    // The first of a row keeps its gradient and so the scale; the others' v is 1.5e-5 of it, code 16, and shrinks.
    const grad = Float32Array.from(
      { length: rows * columns },
      (_, at) => at % columns === 0 ? 1 : 0.004,
    );
    let state = await adam(zeros(rows, columns, draw), { grad, touched });
    const isFirst = (_: number, at: number): boolean => at % columns === 0;
    const others = (values: Float64Array): number =>
      values.filter((value, at) => !isFirst(value, at))
        .reduce((sum, value) => sum + value, 0);
    const before = others(decode(state).v);
    // With what the first has now, its v stays.
    const still = grad.map((g, at) => isFirst(g, at) ? Math.sqrt(0.001) : 0);
    state = await adam(state, { grad: still, touched, step: 1, steps });
    const share = others(decode(state).v) / before;
    // 16,320 numbers that each are 1.25 codes of 24 % further down, or not: 0.3 % of standard deviation.
    const want = BETA2 ** steps;
    ok(Math.abs(share - want) < 0.015, `${share} is left instead of ${want}`);
  },
);

seededTest("adam_q8 never forgets that v is above 0", async (draw) => {
  const [rows, columns] = [9, 260];
  const grad = draw(rows * columns).map((g, at) =>
    at % columns === 3 ? 100 : at % 5 === 0 ? 0 : g * 1e-4
  );
  let state = await adam(zeros(rows, columns, draw), {
    grad,
    touched: new Uint32Array(rows).fill(1),
  });
  const check = (): void => {
    const { codesV } = decode(state);
    const wrong = codesV.findIndex((code, at) =>
      (code === 0) !== (grad[at] === 0)
    );
    ok(wrong < 0, `code ${codesV[wrong]} for a gradient of ${grad[wrong]}`);
  };
  check();
  const touched = new Uint32Array(rows);
  state = await adam(state, { grad, touched, step: 1, steps: 30 });
  check();
});

seededTest("adam_q8 changes nothing once a step was bad", async (draw) => {
  const state = await warm(draw, ROWS, COLUMNS);
  const grad = draw(ROWS * COLUMNS).fill(NaN, 0, 9);
  const touched = new Uint32Array(ROWS).fill(1);
  const after = await adam(state, { grad, touched, isBad: true, step: 1 });
  deepEqual(after, state);
});

seededTest(
  "adam_q8 gives the same bits whole and in windows, and other roundings in another step",
  async (draw) => {
    const rows = 131;
    const state = await warm(draw, rows, COLUMNS);
    const grad = draw(rows * COLUMNS);
    const touched = Uint32Array.from({ length: rows }, (_, row) => row % 3);
    const whole = await adam(state, { grad, touched, step: 7 });
    for (const [start, end] of [[0, 64], [64, 131]] as const) {
      const window = { start, end };
      const cut = (state: State): State => ({
        rows: end - start,
        columns: COLUMNS,
        W: rowsOf(state.W, COLUMNS, window),
        m: rowsOf(state.m, COLUMNS / 4, window),
        v: rowsOf(state.v, COLUMNS / 4, window),
        scales: rowsOf(state.scales, 2 * blocksOf(COLUMNS), window),
      });
      const part = await adam(cut(state), {
        grad: rowsOf(grad, COLUMNS, window),
        touched: rowsOf(touched, 1, window),
        step: 7,
        start,
      });
      deepEqual(part, cut(whole));
    }
    const other = await adam(state, { grad, touched, step: 8 });
    deepEqual(other.W, whole.W);
    ok(other.m.some((word, i) => word !== whole.m[i]));
    ok(other.v.some((word, i) => word !== whole.v[i]));
  },
);
