/**
 * Which member of the family of matrix products is fastest on the adapter at hand: a few are timed, once for each shape.
 * @module
 */
import type { Dtype, Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import {
  isUsable,
  isWeights,
  matmul,
  matmulKey,
  type MatmulShape,
  resolveVariant,
  type VariantShape,
} from "./matmul.ts";
import { turn } from "./turn.ts";
import { turnBf16 } from "./turn_bf16.ts";

/** Multiplications and additions of a timed product: some 40 ms on two cores, less on a graphics card. Larger ones are timed in part. */
const MOST_WORK = { software: 2 ** 30, card: 2 ** 36 };
/** Bytes of an operand that is timed. */
const MOST_BYTES = 2 ** 26;
/** Both sides of C are cut down to this before K is. */
const LEAST_SIDE = 128;
/** No candidate is begun after the first, no round after the second; compiling counts. */
const BUDGET_MS = { candidates: 2000, rounds: 3500 };
/** What waiting alone takes in Deno. */
const WAIT_MS = 10;
/** Least time of a measurement by timestamps, and by the clock, which counts waiting. */
const LEAST_MS = { timestamps: 10, clock: 60 };
/** Products of a measurement. */
const MOST_LAUNCHES = 64;
/** Candidates that are so much slower than the fastest at first are out, and all but a few. */
const OUTSIDE = 1.4;
const FINALISTS = 3;
/** Fewer times tell nothing on a machine that others use too. */
const LEAST_TIMES = 4;
/** What is taken without timing is left only for a gain beyond noise. */
const GAIN = 0.97;
/** Rounds among what is left, at most. */
const ROUNDS = 8;

type Tile = readonly [m: number, n: number];

/** Tiles that may win on software drivers: operands along k are loaded in groups of four k, which fill registers sooner. */
const REGISTERS: readonly Tile[] = [
  [8, 16],
  [12, 16],
  [8, 12],
  [16, 16],
  [12, 12],
  [16, 12],
  [8, 8],
];
/** Where k is outermost. */
const TALL_REGISTERS: readonly Tile[] = [
  [24, 16],
  [16, 16],
  [24, 12],
  [32, 16],
  [12, 16],
  [16, 12],
];

type Shared = Pick<VariantShape, "kind" | "tile" | "workgroup">;

const shared = (tile: Tile, workgroup: Tile): Shared => ({
  kind: "workgroup",
  tile,
  workgroup,
});
/** And on graphics cards: tiles of 64 by 64 to 128 by 128 that a workgroup shares, smaller ones where they are few. */
const WORKGROUP: readonly Shared[] = [
  shared([4, 4], [16, 16]),
  shared([8, 8], [16, 16]),
  shared([8, 8], [8, 8]),
  shared([8, 4], [16, 16]),
  shared([4, 8], [16, 16]),
  shared([4, 4], [8, 8]),
  shared([2, 2], [16, 16]),
];

/**
 * The variants of a product that are timed: the one that is taken without timing, then those of the adapter's kind, most
 * promising first, with one of the other kind among them.
 */
export function candidatesOf(gpu: Gpu, shape: MatmulShape): VariantShape[] {
  const kinds = [registersOf(shape), sharedOf(shape)];
  const [own, other] = gpu.isSoftware ? kinds : kinds.reverse();
  // 16-byte loads where the sizes allow them.
  const usable = (variants: readonly VariantShape[]): VariantShape[] =>
    variants.flatMap((variant) =>
      [true, false].map((vec) => ({ ...variant, vec }))
        .filter((variant) => isUsable(gpu, variant, shape)).slice(0, 1)
    );
  const [first, ...rest] = usable(own!);
  return unique([
    resolveVariant(gpu, shape),
    ...(first ? [first] : []),
    ...usable(other!).slice(0, 1),
    ...rest,
  ]);
}

/** And for few rows of A: lanes of their own rows, or eight that share each row. */
const FEW_ROWS = 8;
const FEW_REGISTERS = [16, 8, 4];
const SHARED_LANES = [16, 24, 8];

/** For software drivers. */
function registersOf(shape: MatmulShape): VariantShape[] {
  const { layout, M } = shape;
  const m = Math.min(FEW_ROWS, 2 ** Math.ceil(Math.log2(M)));
  const dots = layout !== "mk,nk" || (M > FEW_ROWS && !isWeights(shape))
    ? []
    : SHARED_LANES.map((n) => dot([m, n], 8));
  const few = layout === "km,kn" || M > FEW_ROWS
    ? []
    : FEW_REGISTERS.map((n): VariantShape => ({
      kind: "registers",
      tile: [m, n],
      workgroup: [8, 1],
      vec: true,
    }));
  return [...few.slice(0, 1), ...dots, ...few.slice(1), ...large(layout)];
}

/** Tiles for many rows. */
function large(layout: MatmulShape["layout"]): VariantShape[] {
  const make = (turns: boolean) => (tile: Tile): VariantShape => ({
    kind: "registers",
    tile,
    workgroup: [8, 1],
    vec: true,
    turns,
  });
  if (layout === "km,kn") return TALL_REGISTERS.map(make(false));
  return [...TALL_REGISTERS.map(make(true)), ...REGISTERS.map(make(false))];
}

function sharedOf({ layout, M }: MatmulShape): VariantShape[] {
  const few = Math.min(M, FEW_ROWS);
  const dots = layout !== "mk,nk" || M > FEW_ROWS
    ? []
    : [[4, 64], [8, 64], [4, 32], [2, 64], [2, 128]]
      .map(([n, lanes]) => dot([few, n!], lanes!));
  return [
    ...dots,
    ...WORKGROUP.map((variant) => ({ ...variant, vec: true })),
  ];
}

function dot(tile: Tile, lanes: number): VariantShape {
  return { kind: "dot", tile, workgroup: [lanes, 1], vec: true };
}

function unique(variants: readonly VariantShape[]): VariantShape[] {
  const names = variants.map(({ kind, tile, workgroup, vec, turns = false }) =>
    JSON.stringify([kind, tile, workgroup, vec, turns])
  );
  return variants.filter((_, i) => names.indexOf(names[i]!) === i);
}

/**
 * Times what is unknown of these products, or all with mode "force", and remembers the fastest variant of each in
 * `gpu.tuning`. Takes up to some 4 s for each and {@link MOST_BYTES} for each operand; nothing where tuning is off.
 */
export async function tuneMatmuls(
  gpu: Gpu,
  shapes: readonly MatmulShape[],
): Promise<void> {
  for (const shape of shapes) {
    const key = matmulKey(shape);
    if (gpu.tuning.isWanted(key)) {
      gpu.tuning.set(key, await fastestOf(gpu, shape));
    } else {
      // Known ones are now in use: a checkpoint before their first launch has them too.
      gpu.tuning.get(key);
    }
  }
}

/** A variant and its times, oldest first. */
interface Timed {
  readonly variant: VariantShape;
  readonly ms: number[];
}

const least = ({ ms }: Timed): number => Math.min(...ms);

/**
 * Whether a variant is faster than another beyond noise: by their least times, and in three of four rounds, in which both
 * were timed one right after the other, so that passing load decides nothing.
 */
export function isFaster(a: Timed, b: Timed): boolean {
  const wins = a.ms.filter((ms, round) => ms < GAIN * b.ms[round]!).length;
  return a.ms.length >= LEAST_TIMES && wins >= 0.75 * a.ms.length &&
    least(a) < GAIN * least(b);
}

async function fastestOf(
  gpu: Gpu,
  shape: MatmulShape,
): Promise<VariantShape> {
  const before = new Map(gpu.scratch);
  using product = new TimedProduct(gpu, shape);
  try {
    const [untimed, ...others] = candidatesOf(gpu, shape);
    const start = performance.now();
    const isOver = (budget: number): boolean =>
      performance.now() - start > budget;
    const first = await product.time(untimed!);
    const timed: Timed[] = [];
    for (const variant of others) {
      if (isOver(BUDGET_MS.candidates)) break;
      timed.push(await product.time(variant));
    }
    const most = OUTSIDE * Math.min(...[first, ...timed].map(least));
    const near = timed.filter((candidate) => least(candidate) < most)
      .sort((a, b) => least(a) - least(b)).slice(0, FINALISTS);
    const last = near.length > 0 ? [first, ...near] : [];
    for (let round = 0; round < ROUNDS && !isOver(BUDGET_MS.rounds); round++) {
      for (const { variant, ms } of last) {
        ms.push(...(await product.time(variant)).ms);
      }
    }
    const best = near.filter((candidate) => isFaster(candidate, first))
      .sort((a, b) => least(a) - least(b))[0] ?? first;
    return best.variant;
  } finally {
    // Nobody may need what was turned again.
    await gpu.settled();
    for (const [label, tensor] of gpu.scratch) {
      if (before.get(label) === tensor) continue;
      tensor[Symbol.dispose]();
      gpu.scratch.delete(label);
    }
  }
}

/** The part of a product that is timed: few rows and columns of a large one, of the same K. */
export function partOf(
  shape: MatmulShape,
  isSoftware: boolean,
): Pick<MatmulShape, "M" | "N" | "K"> {
  let { M, N, K } = shape;
  const work = isSoftware ? MOST_WORK.software : MOST_WORK.card;
  const isTooLarge = (): boolean =>
    2 * M * N * K > work ||
    4 * Math.max(M * K, N * K, M * N) > MOST_BYTES;
  // Powers of two, so that a part can be loaded as the whole can.
  const less = (n: number): number => 2 ** (Math.ceil(Math.log2(n)) - 1);
  while (isTooLarge()) {
    if (Math.max(M, N) <= LEAST_SIDE) K = less(K);
    else if (M >= N) M = less(M);
    else N = less(N);
  }
  return { M, N, K };
}

/** Operands of a product, or of a part of it, that takes its time with any variant. */
class TimedProduct implements Disposable {
  readonly #gpu: Gpu;
  readonly #layout: MatmulShape["layout"];
  readonly #A: Tensor;
  readonly #B: Tensor;
  readonly #C: Tensor;
  /** How much of the time of turning operands counts: in the whole product more rows and columns share it. */
  readonly #turnShare: number;
  readonly #launches = new Map<VariantShape, number>();
  readonly #owned: DisposableStack;

  constructor(gpu: Gpu, shape: MatmulShape) {
    using owned = new DisposableStack();
    const { layout, aType, bType } = shape;
    const { M, N, K } = partOf(shape, gpu.isSoftware);
    const own = (label: string, dtype: Dtype, shape: number[]): Tensor =>
      owned.use(gpu.tensor(label, dtype, shape));
    this.#gpu = gpu;
    this.#layout = layout;
    this.#A = own("A", aType, layout === "km,kn" ? [K, M] : [M, K]);
    this.#B = own("B", bType, layout === "mk,nk" ? [N, K] : [K, N]);
    this.#C = own("C", "f32", [M, N]);
    const [ofA, ofB] = [N / shape.N, M / shape.M];
    this.#turnShare = layout === "mk,nk" ? (M * ofA + N * ofB) / (M + N) : ofA;
    this.#owned = owned.move();
  }

  /** Times a variant once, after a warm-up where it is new. */
  async time(variant: VariantShape): Promise<Timed> {
    let n = this.#launches.get(variant);
    if (n === undefined) {
      await this.#run(variant, 1); // compiles
      const once = await this.#run(variant, 1);
      n = once.isCounted
        ? Math.ceil(LEAST_MS.timestamps / once.ms)
        : Math.ceil(LEAST_MS.clock / Math.max(1, once.ms - WAIT_MS));
      n = Math.min(MOST_LAUNCHES, n);
      this.#launches.set(variant, n);
      if (n === 1) return { variant, ms: [once.ms] };
    }
    return { variant, ms: [(await this.#run(variant, n)).ms] };
  }

  /** Milliseconds of one of `n` products: as the GPU counts where it does, and by the clock, with waiting. */
  async #run(
    variant: VariantShape,
    n: number,
  ): Promise<{ ms: number; isCounted: boolean }> {
    const gpu = this.#gpu;
    const [layout, A, B, C] = [this.#layout, this.#A, this.#B, this.#C];
    const multiply = (rec: Recorder): void => {
      for (let i = 0; i < n; i++) matmul(rec, { layout, A, B, C, variant });
    };
    const profiler = gpu.device.features.has("timestamp-query") &&
        !gpu.profiler
      ? gpu.startProfile()
      : undefined;
    const start = performance.now();
    gpu.record("time a product", multiply);
    await gpu.device.queue.onSubmittedWorkDone();
    const clock = (performance.now() - start) / n;
    let counted = 0;
    for (const { kernel, ms } of await profiler?.stop() ?? []) {
      const isTurn = kernel === turn.name || kernel === turnBf16.name;
      counted += isTurn ? this.#turnShare * ms : ms;
    }
    await gpu.settled();
    const isCounted = counted > 0;
    return { ms: isCounted ? counted / n : clock, isCounted };
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
