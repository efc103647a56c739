import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { cells, compareSides, isMet, productRate } from "../bench/compare.ts";
import { checkMatvec, matvecProblem } from "../bench/matvec_problem.ts";
import { checkProduct, matmulProblem } from "../bench/problem.ts";
import { bf16ToF32 } from "../core/dtype.ts";
import {
  checkAgreement,
  type Measured,
  median,
  medianRatio,
} from "../bench/side.ts";
import { runTask } from "./tasks/run_task.ts";

/** A side whose turns are slowed by load; the same load meets every side. */
const side = (name: string, wallMs: number, cpuMs: number): Measured => ({
  name,
  wallMs,
  cpuMs,
  samples: [1, 1, 2, 7].map((load) => ({ wallMs: load * wallMs, cpuMs })),
  runs: 1,
});

/** A comparison in the report. */
interface Reported {
  readonly measure: string;
  readonly ours: string;
  readonly other: string;
  readonly value: number | null;
  readonly met: boolean | null;
}

Deno.test("bench-rivals measures our side alone when nothing else is installed", async () => {
  const run = await runTask(
    ["bench-rivals", "--tiny", "--json", "--repeats", "2", "--sample", "0.02"],
  );
  equal(run.code, 0, run.stderr);
  const { gpu, cores, versions, command, results } = JSON.parse(run.stdout);
  ok(gpu.length > 0 && cores > 0);
  equal(versions.deno, Deno.version.deno);
  equal(versions["@jax-js/jax"], "not installed");
  match(command, /^deno task bench-rivals --tiny --json/);
  deepEqual(
    results.map(({ sides }: { sides: readonly Measured[] }) =>
      sides.map(({ name }) => name)
    ),
    [
      ["f32 mk,kn", "f32 mk,nk", "f32 km,kn", "bf16 km,kn"]
        .map((product) => `ours, ${product}`),
      ["ours, dense", "ours, sparse"],
      ["ours, dense", "ours, sparse"],
      ...Array(2).fill([
        "ours, bf16, 1 row",
        "ours, bf16, 2 rows",
        "ours, bf16, 8 rows",
        ...[8, 64, 256].map((n) => `reading W alone, ${n} lanes a row`),
      ]),
    ],
  );
  for (const { measure, sides, comparisons } of results) {
    for (const { name, wallMs, cpuMs, runs } of sides as Measured[]) {
      ok(Number.isFinite(wallMs) && wallMs > 0, `${measure}, ${name}`);
      ok(Number.isFinite(cpuMs) && cpuMs > 0 && runs >= 1, `${name}: ${cpuMs}`);
    }
    for (const { ours, other, value, met } of comparisons as Reported[]) {
      const isMissing = /not installed|not named/.test(other);
      equal(value === null, isMissing, `${ours} against ${other}: ${value}`);
      equal(met, null, "targets are of the full sizes");
      if (!isMissing) {
        ok(Number.isFinite(value), `${ours} against ${other}: ${value}`);
      }
    }
  }
  const [, step] = results;
  ok(Math.abs(step.L0 - 8) < 2, `L0 ${step.L0} of 8 wanted`);
  const { "ours, dense": dense } = step.losses;
  ok(dense[0] > dense[2], "the checked steps change the loss");
});

Deno.test("bench-rivals refuses a measure that it does not know", async () => {
  const unknown = await runTask(["bench-rivals", "--tiny", "--only", "matmul"]);
  equal(unknown.code, 1);
  match(
    unknown.stderr,
    /^error: Cannot measure "matmul": expected one of product, step, wide, matvec-down, matvec-up$/m,
  );
});

Deno.test("checkAgreement() refuses losses when a side computes something else", () => {
  const losses = (...other: number[]) =>
    new Map([["ours", [10, 9, 8]], ["theirs", other]]);
  checkAgreement(losses(10.0005, 9.0005, 7.9995));
  for (const other of [[10, 9, 8.01], [10, NaN, 8], [10, 9]]) {
    throws(
      () => checkAgreement(losses(...other)),
      /^RangeError: Cannot compare theirs with ours: expected a loss of [98] in step [12]/,
    );
  }
  throws(() => checkAgreement(new Map([["ours", [NaN]]])), RangeError);
});

Deno.test("checkProduct() refuses a product when it is of other matrices", () => {
  const problem = matmulProblem(8, 1);
  const row = Float32Array.from({ length: 8 }, (_, j) => {
    let sum = 0;
    for (let k = 0; k < 8; k++) sum += problem.A[k]! * problem.B[8 * k + j]!;
    return sum;
  });
  checkProduct(problem, "side", row);
  throws(() => checkProduct(problem, "side", new Float32Array(8)), RangeError);
});

Deno.test("checkMatvec() refuses a product when it is of another row", () => {
  const problem = matvecProblem([8, 16], 1);
  const weights = bf16ToF32(problem.W);
  const y = (row: number) =>
    Float32Array.from({ length: 8 }, (_, n) => {
      let sum = 0;
      for (let k = 0; k < 16; k++) {
        sum += weights[16 * n + k]! * problem.x[16 * row + k]!;
      }
      return sum;
    });
  checkMatvec(problem, "side", y(0));
  checkMatvec(problem, "side", y(7), 1e-3, 7);
  throws(() => checkMatvec(problem, "side", y(1)), RangeError);
  throws(() => checkMatvec(problem, "side", y(0).fill(NaN)), RangeError);
});

Deno.test("isMet() holds a comparison to its target from the right side", () => {
  const [ours, theirs] = [side("ours", 10, 20), side("theirs", 50, 80)];
  const comparison = compareSides("step", ours, theirs, 5);
  deepEqual([comparison.value, comparison.cpuValue], [5, 4]);
  ok(isMet(comparison));
  equal(isMet(compareSides("step", ours, theirs, 5.1)), false);
  equal(isMet(compareSides("step", ours, theirs, undefined)), undefined);
  equal(isMet(compareSides("step", ours, { missing: "none" }, 5)), undefined);
  const most = { bound: "most", value: 5 } as const;
  ok(isMet({ value: 5, target: most }));
  equal(isMet({ value: 5.1, target: most }), false);
  const rate = { flop: 3e8, nCores: 2, least: 30 };
  const { value, cpuValue } = productRate("product", ours, rate);
  deepEqual([value, cpuValue], [30, 30]);
  deepEqual(cells(comparison).slice(3), ["5.00 ×", "4.00 ×", "≥ 5 ×", "met"]);
});

Deno.test("median() takes the middle, whatever the order", () => {
  equal(median([3, 1, 2]), 2);
  equal(median([4, 1, 2, 3]), 2.5);
});

Deno.test("medianRatio() is that of the turns when load slows some of them down", () => {
  equal(medianRatio([10, 10, 30, 30], [5, 5, 15, 15]), 2);
  // The load came between the two sides of the second turn only.
  equal(medianRatio([10, 40, 30], [5, 5, 15]), 2);
});
