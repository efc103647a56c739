import { deepEqual, equal, throws } from "node:assert/strict";
import { Gate, type Gpu, type Recorder, type Tensor } from "../../gpu/mod.ts";
import { openGate } from "../../kernels/open_gate.ts";
import { scaleBy } from "../../kernels/scale_by.ts";
import { testGpu } from "../gpu_for_tests.ts";

/** A gate with what opens it, and numbers that its launches double or triple. */
class Gated implements Disposable {
  readonly gpu: Gpu;
  readonly gate: Gate;
  readonly #branch: Tensor;
  readonly #counts: Tensor;
  readonly #factors: readonly Tensor[];
  readonly #owned = new DisposableStack();

  constructor(gpu: Gpu, most: number) {
    this.gpu = gpu;
    this.gate = this.#owned.use(new Gate(gpu, most));
    this.#branch = this.#owned.use(gpu.tensor("branch", "u32", [1]));
    this.#counts = this.#owned.use(gpu.tensor("counts", "u32", [2]));
    this.#factors = [2, 3].map((factor) =>
      this.#owned.use(gpu.floats("factor", [1], Float32Array.of(factor)))
    );
  }

  /** `n` numbers that are 1. */
  ones(n: number): Tensor {
    const ones = new Float32Array(n).fill(1);
    return this.#owned.use(this.gpu.floats("values", [n], ones));
  }

  /** Opens the gate for a branch and a number of items, and records launches. */
  record(
    branch: number,
    items: number,
    fill: (rec: Recorder) => void,
  ): void {
    this.#branch.write(Uint32Array.of(branch));
    this.#counts.write(Uint32Array.of(77, items));
    this.gate.reset();
    this.gpu.record("gated", (rec) => {
      openGate.run(rec, {
        branch: this.#branch,
        counts: this.#counts,
        wanted: this.gate.wanted,
        allowed: this.gate.allowed,
      });
      fill(rec);
    });
  }

  /** Multiplies by 2 on branch 0 and by 3 on branch 1. */
  multiply(
    rec: Recorder,
    values: Tensor,
    branch: number,
    itemsPerWorkgroup?: number,
  ): void {
    const launch = itemsPerWorkgroup === undefined
      ? { branch }
      : { branch, itemsPerWorkgroup };
    rec.gated(this.gate, launch, () => {
      scaleBy.run(rec, { factor: this.#factors[branch]!, values });
    });
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

Deno.test("a gate lets the launches of its branch take place, and launches outside of it always", async () => {
  using gated = new Gated(await testGpu(), 4);
  const [values, others] = [gated.ones(65), gated.ones(65)];
  const step = (branch: number): void =>
    gated.record(branch, 0, (rec) => {
      gated.multiply(rec, values, 0);
      gated.multiply(rec, values, 1);
      scaleBy.run(rec, { factor: values.rows(0, 1), values: others });
    });
  step(0);
  deepEqual([...await gated.gpu.read(values)], new Array(65).fill(2));
  step(1);
  step(1);
  deepEqual([...await gated.gpu.read(values)], new Array(65).fill(18));
  deepEqual([...await gated.gpu.read(others)], new Array(65).fill(2 * 6 * 18));
});

Deno.test("a gate follows a recording whose launches changed", async () => {
  using gated = new Gated(await testGpu(), 3);
  const [short, long] = [gated.ones(64), gated.ones(200)];
  gated.record(1, 0, (rec) => gated.multiply(rec, short, 1));
  gated.record(1, 0, (rec) => gated.multiply(rec, long, 1));
  gated.record(1, 0, (rec) => {
    gated.multiply(rec, long, 0);
    gated.multiply(rec, long, 1);
  });
  deepEqual([...await gated.gpu.read(short)], new Array(64).fill(3));
  deepEqual([...await gated.gpu.read(long)], new Array(200).fill(9));
});

Deno.test("a gate launches as many workgroups as its items take, in two dimensions if need be", async () => {
  using gated = new Gated(await testGpu(), 2);
  const nDoubled = async (items: number, each: number, n: number) => {
    const values = gated.ones(n);
    gated.record(0, items, (rec) => gated.multiply(rec, values, 0, each));
    const doubled = await gated.gpu.read(values);
    equal(doubled.lastIndexOf(2), doubled.filter((v) => v === 2).length - 1);
    return doubled.lastIndexOf(2) + 1;
  };
  // A workgroup multiplies 64 numbers.
  equal(await nDoubled(0, 10, 640), 0);
  equal(await nDoubled(1, 10, 640), 64);
  equal(await nDoubled(30, 10, 640), 192);
  equal(await nDoubled(31, 10, 640), 256);
  const n = 64 * 65_538;
  equal(await nDoubled(65_538, 1, n), n);
});

Deno.test("a gate has an end, and one of its recordings that failed does not matter to the next", async () => {
  using gated = new Gated(await testGpu(), 2);
  const values = gated.ones(64);
  throws(
    () =>
      gated.record(0, 0, (rec) => {
        for (let n = 0; n < 3; n++) gated.multiply(rec, values, 1);
      }),
    /^RangeError: Cannot record another gated launch: expected at most 2$/,
  );
  gated.record(0, 0, (rec) => gated.multiply(rec, values, 0));
  deepEqual([...await gated.gpu.read(values)], new Array(64).fill(2));
});
