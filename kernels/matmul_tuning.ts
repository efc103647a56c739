/**
 * Which member of the family of matrix products is fastest on the adapter at hand: a few are timed, once for each shape.
 * @module
 */
import type { Dtype, Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import {
  isUsable,
  matmul,
  matmulKey,
  type MatmulShape,
  resolveVariant,
  type VariantShape,
} from "./matmul.ts";

/** Larger products are timed on a part of their rows and columns. */
const MOST = { M: 1024, N: 8192, K: 8192 };
/** Least time of a measurement: waiting alone takes 10 ms in Deno. */
const LEAST_MS = 60;

/** Variants that may win, for software drivers: big tiles in registers. */
const REGISTERS: readonly (readonly [m: number, n: number])[] = [
  [8, 12],
  [8, 16],
  [12, 16],
  [16, 16],
  [24, 16],
  [32, 16],
];

/** And for graphics cards: tiles that a workgroup shares. */
const WORKGROUP: readonly Pick<VariantShape, "tile" | "workgroup">[] = [
  { tile: [2, 2], workgroup: [16, 16] },
  { tile: [4, 4], workgroup: [8, 8] },
  { tile: [4, 4], workgroup: [16, 16] },
  { tile: [8, 4], workgroup: [16, 16] },
  { tile: [4, 8], workgroup: [16, 16] },
  { tile: [8, 8], workgroup: [8, 8] },
  { tile: [8, 8], workgroup: [16, 16] },
];

/** The variants of a product that are timed; the one that is taken without timing comes first. */
export function candidatesOf(gpu: Gpu, shape: MatmulShape): VariantShape[] {
  const registers = REGISTERS.flatMap((tile) =>
    [true, false].map((turns): VariantShape => ({
      kind: "registers",
      tile,
      workgroup: [8, 1],
      vec: true,
      turns: turns && shape.layout !== "km,kn",
    }))
  );
  const workgroup = WORKGROUP.map((variant): VariantShape => ({
    kind: "workgroup",
    vec: false,
    ...variant,
  }));
  const untimed = resolveVariant(gpu, shape);
  const all = [untimed, ...(gpu.isSoftware ? registers : workgroup)]
    .filter((variant) => isUsable(gpu, variant, shape));
  const names = all.map((variant) => JSON.stringify(sorted(variant)));
  return all.filter((_, i) => names.indexOf(names[i]!) === i);
}

/**
 * Times what is unknown of these products, and remembers the fastest variant of each in `gpu.tuning`.
 * Does nothing where tuning is off.
 */
export async function tuneMatmuls(
  gpu: Gpu,
  shapes: readonly MatmulShape[],
): Promise<void> {
  for (const shape of shapes) {
    const key = matmulKey(shape);
    if (!gpu.tuning.isWanted(key)) continue;
    const candidates = candidatesOf(gpu, shape);
    let [best, least] = [candidates[0]!, Infinity];
    using operands = new Operands(gpu, shape);
    for (const variant of candidates) {
      const ms = await timeOf(gpu, (rec) => operands.multiply(rec, variant));
      if (ms < least) [best, least] = [variant, ms];
    }
    gpu.tuning.set(key, best);
  }
}

/** Operands of a product, or of a part of it. */
class Operands implements Disposable {
  readonly #layout: MatmulShape["layout"];
  readonly #A: Tensor;
  readonly #B: Tensor;
  readonly #C: Tensor;
  readonly #owned: DisposableStack;

  constructor(gpu: Gpu, { layout, aType, bType, ...sizes }: MatmulShape) {
    using owned = new DisposableStack();
    const part = (name: "M" | "N" | "K"): number =>
      Math.min(sizes[name], MOST[name]);
    const [M, N, K] = [part("M"), part("N"), part("K")];
    const own = (label: string, dtype: Dtype, shape: number[]): Tensor =>
      owned.use(gpu.tensor(label, dtype, shape));
    this.#layout = layout;
    this.#A = own("A", aType, layout === "km,kn" ? [K, M] : [M, K]);
    this.#B = own("B", bType, layout === "mk,nk" ? [N, K] : [K, N]);
    this.#C = own("C", "f32", [M, N]);
    this.#owned = owned.move();
  }

  multiply(rec: Recorder, variant: VariantShape): void {
    const [A, B, C] = [this.#A, this.#B, this.#C];
    matmul(rec, { layout: this.#layout, A, B, C, variant });
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Milliseconds of one launch: the least of three measurements after a warm-up. */
async function timeOf(
  gpu: Gpu,
  record: (rec: Recorder) => void,
): Promise<number> {
  const run = async (n: number): Promise<number> => {
    const start = performance.now();
    gpu.record("time a product", (rec) => {
      for (let i = 0; i < n; i++) record(rec);
    });
    await gpu.device.queue.onSubmittedWorkDone();
    return (performance.now() - start) / n;
  };
  await run(1);
  const n = Math.max(1, Math.min(64, Math.ceil(LEAST_MS / await run(1))));
  let least = Infinity;
  for (let i = 0; i < 3; i++) least = Math.min(least, await run(n));
  await gpu.settled();
  return least;
}

function sorted(variant: VariantShape): unknown {
  const { kind, tile, workgroup, vec, turns = false } = variant;
  return [kind, tile, workgroup, vec, turns];
}
