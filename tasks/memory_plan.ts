/**
 * What a training run will hold in memory, and what to change where it does not fit.
 * @module
 */
import type { SaeRecipe } from "../train/recipe.ts";
import { largestBatch } from "../train/trainer.ts";
import { flagName } from "../core/flag_table.ts";
import { formatBytes, formatCount, formatTable } from "./format.ts";

/** Where memory is taken. */
export type MemoryPlace = "GPU" | "host";

/** Something that a run holds from beginning to end. */
export interface MemoryRow {
  /** In words: "gradients". */
  readonly what: string;
  readonly bytes: number;
  /** The GPU when absent. */
  readonly where?: MemoryPlace;
}

/** A run, and what its recipe takes. */
export interface PlannedRun {
  readonly recipe: SaeRecipe;
  readonly d_model: number;
  /** Vectors of the data; infinite where they are made on the way. */
  readonly nVectors: number;
  /** What the trainer holds with a recipe, but for the vectors that batches are drawn from. */
  readonly memoryOf: (recipe: SaeRecipe) => readonly MemoryRow[];
}

/** Limits of a device that a trainer meets. */
export interface DeviceLimits {
  /** Bytes of the largest binding. */
  readonly maxStorageBufferBindingSize: number;
}

/** How much may be taken; what is absent is unknown, and nothing is refused for it. */
export interface MemoryBudget {
  /** Bytes on the GPU. */
  readonly gpu?: number;
  /** Bytes on the host. */
  readonly host?: number;
  /** Whether the GPU's memory is the host's: then `host` is for both together. */
  readonly isShared: boolean;
}

/** A recipe that fits, as flags. */
export interface MemoryChange {
  /** As they are typed: "--moments q8". */
  readonly flags: string;
  readonly gpuBytes: number;
  readonly hostBytes: number;
}

/** Where everything will be. */
export interface TrainingPlan {
  readonly rows: readonly Required<MemoryRow>[];
  readonly gpuBytes: number;
  readonly hostBytes: number;
  readonly budget: MemoryBudget;
  /** Why it cannot run, in the form "expected … : got …"; absent where it can. */
  readonly problem?: string;
  /** What makes it run, the smallest change first; empty where nothing is wrong, or nothing helps. */
  readonly changes: readonly MemoryChange[];
}

/** Fields of a recipe that a plan may change. */
type Change = Partial<
  Pick<SaeRecipe, "moments" | "batch" | "accumulate" | "bufferRows" | "d_sae">
>;

/** Batches smaller than this leave a device idle. */
const LEAST_BATCH = 64;

/** Fewer vectors are no mixture of documents any more. */
const LEAST_BUFFER = 2 ** 14;

/**
 * Adds up what a run takes and compares it with the device's limits and the budget.
 * Where it does not fit, every change that is offered was planned too, and fits.
 */
export function planTraining(
  run: PlannedRun,
  limits: DeviceLimits,
  budget: MemoryBudget,
): TrainingPlan {
  const plan = addUp(run, run.recipe);
  const problem = problemOf(run, run.recipe, limits, budget);
  const changes = problem === undefined
    ? []
    : changesFor(run, (recipe) =>
      problemOf(run, recipe, limits, budget) === undefined);
  return {
    ...plan,
    budget,
    changes,
    ...(problem !== undefined && { problem }),
  };
}

/** Throws if a plan has a problem. */
export function checkPlan({ problem, changes }: TrainingPlan): void {
  if (problem === undefined) return;
  const ways = changes.map(({ flags, gpuBytes, hostBytes }) =>
    `${flags} (GPU ${formatBytes(gpuBytes)}, host ${formatBytes(hostBytes)})`
  );
  throw new RangeError(
    `Cannot train: ${problem}: ${
      ways.length === 0
        ? "no smaller batch, buffer or number of features helps: take another GPU"
        : `take ${ways.join(" or ")}`
    }`,
  );
}

/** A plan as a table, the totals against the budget last. */
export function describePlan(plan: TrainingPlan): string {
  const { rows, gpuBytes, hostBytes, budget } = plan;
  const total = (
    place: MemoryPlace,
    bytes: number,
    most: number | undefined,
  ): string[] => [
    "total",
    place,
    formatBytes(bytes),
    most === undefined ? "" : `of ${formatBytes(most)}`,
  ];
  const totals = budget.isShared
    ? [total("host", gpuBytes + hostBytes, budget.host)]
    : [
      total("GPU", gpuBytes, budget.gpu),
      total("host", hostBytes, budget.host),
    ];
  const where = (place: MemoryPlace): string =>
    budget.isShared && place === "GPU" ? "host, as GPU" : place;
  return formatTable(["memory", "where", "bytes", ""], [
    ...rows.map((row) => [row.what, where(row.where), formatBytes(row.bytes)]),
    ...totals,
  ]);
}

function addUp(
  { d_model, nVectors, memoryOf }: PlannedRun,
  recipe: SaeRecipe,
): Pick<TrainingPlan, "rows" | "gpuBytes" | "hostBytes"> {
  const nBuffered = Math.min(recipe.bufferRows, nVectors);
  const rows = memoryOf(recipe).map((row) => ({
    ...row,
    where: row.where ?? "GPU",
  }));
  rows.push({
    what: `${formatCount(nBuffered)} vectors to draw from`,
    where: "host",
    bytes: 2 * d_model * nBuffered,
  });
  const sum = (place: MemoryPlace): number =>
    rows.reduce(
      (total, { where, bytes }) => total + (where === place ? bytes : 0),
      0,
    );
  return { rows, gpuBytes: sum("GPU"), hostBytes: sum("host") };
}

/** What keeps a recipe from running, the device's limits first. */
function problemOf(
  run: PlannedRun,
  recipe: SaeRecipe,
  { maxStorageBufferBindingSize: binding }: DeviceLimits,
  { gpu, host, isShared }: MemoryBudget,
): string | undefined {
  const { d_model } = run;
  if (4 * d_model > binding) {
    return `expected a vector of f32 to fit into a binding of ${
      formatBytes(binding)
    }: got d_model ${d_model}`;
  }
  const most = largestBatch({ ...recipe, d_model }, binding);
  if (recipe.batch > most) {
    return `expected a batch of at most ${
      formatCount(most)
    } vectors, as this GPU binds ${formatBytes(binding)} at once: got ${
      formatCount(recipe.batch)
    }`;
  }
  const { rows, gpuBytes, hostBytes } = addUp(run, recipe);
  const tell = (
    what: string,
    limit: number,
    bytes: number,
    place?: MemoryPlace,
  ): string =>
    `expected at most ${formatBytes(limit)} ${what}: got ${
      formatBytes(bytes)
    }, the most of it ${
      largest(rows.filter(({ where }) => where === (place ?? where)))
    }`;
  if (isShared) {
    const both = gpuBytes + hostBytes;
    const limit = Math.min(gpu ?? Infinity, host ?? Infinity);
    return both > limit
      ? tell("of memory, which this GPU shares with the host", limit, both)
      : undefined;
  }
  if (gpuBytes > (gpu ?? Infinity)) {
    return tell("on the GPU", gpu!, gpuBytes, "GPU");
  }
  return hostBytes > (host ?? Infinity)
    ? tell("on the host", host!, hostBytes, "host")
    : undefined;
}

function largest(rows: readonly MemoryRow[]): string {
  const [first] = rows.toSorted((a, b) => b.bytes - a.bytes);
  return first ? `${first.what} with ${formatBytes(first.bytes)}` : "nothing";
}

/** Changes that make a run fit: each alone if any does, else together, else fewer features. */
function changesFor(
  run: PlannedRun,
  fits: (recipe: SaeRecipe) => boolean,
): MemoryChange[] {
  const { recipe } = run;
  const first = (changes: readonly Change[]): Change | undefined =>
    changes.find((change) => fits({ ...recipe, ...change }));
  const moments = smallerMoments(run);
  const batches = smallerBatches(recipe);
  const buffers = smallerBuffers(run);
  const alone = [first(moments), first(batches), first(buffers)]
    .filter((change) => change !== undefined);
  const together = (a: readonly Change[], b: readonly Change[]): Change[] =>
    a.flatMap((one) => b.map((other) => ({ ...one, ...other })));
  const pairs = [
    together(moments, batches),
    together(moments, buffers),
    together(batches, buffers),
  ];
  const found = alone.length > 0
    ? alone
    : pairs.map(first).filter((change) => change !== undefined);
  if (found.length === 0 && moments.length > 0) {
    const all = first(together(moments, together(batches, buffers)));
    if (all) found.push(all);
  }
  const fewer = fewerFeatures(run, fits, found.length > 0 ? {} : smallest(run));
  if (fewer) found.push(fewer);
  return found.map((change) => {
    const { gpuBytes, hostBytes } = addUp(run, { ...recipe, ...change });
    return { flags: flagsOf(change), gpuBytes, hostBytes };
  });
}

/** 8-bit moments, which go by words of four. */
function smallerMoments({ recipe, d_model }: PlannedRun): Change[] {
  const canShrink = recipe.moments === "f32" && d_model % 4 === 0;
  return canShrink ? [{ moments: "q8" }] : [];
}

/** The same number of vectors a step, in ever more parts. */
function smallerBatches({ batch, accumulate }: SaeRecipe): Change[] {
  const changes: Change[] = [];
  for (let parts = 2; batch / parts >= LEAST_BATCH; parts *= 2) {
    changes.push({
      batch: Math.ceil(batch / parts),
      accumulate: accumulate * parts,
    });
  }
  return changes;
}

function smallerBuffers({ recipe, nVectors }: PlannedRun): Change[] {
  const changes: Change[] = [];
  const least = Math.max(LEAST_BUFFER, recipe.batch * recipe.accumulate);
  let bufferRows = Math.min(recipe.bufferRows, nVectors);
  while ((bufferRows = Math.floor(bufferRows / 2)) >= least) {
    changes.push({ bufferRows });
  }
  return changes;
}

/** All that makes a run smaller without taking features from it. */
function smallest(run: PlannedRun): Change {
  return {
    ...smallerMoments(run).at(-1),
    ...smallerBatches(run.recipe).at(-1),
    ...smallerBuffers(run).at(-1),
  };
}

/** The most features that fit, whole thousands (1024) where there are as many. */
function fewerFeatures(
  { recipe }: PlannedRun,
  fits: (recipe: SaeRecipe) => boolean,
  besides: Change,
): Change | undefined {
  const step = recipe.d_sae > 2048 ? 1024 : 64;
  // Between these, in steps: the first fits or is 0, the second does not.
  let [low, high] = [0, Math.ceil(recipe.d_sae / step)];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    const d_sae = middle * step;
    if (fits({ ...recipe, ...besides, d_sae })) low = middle;
    else high = middle;
  }
  return low === 0 ? undefined : { ...besides, d_sae: low * step };
}

const FLAG_OF: Readonly<Record<keyof Change, string>> = {
  moments: flagName("moments"),
  batch: flagName("batch"),
  accumulate: flagName("accumulate"),
  bufferRows: flagName("buffer_rows"),
  d_sae: flagName("d_sae"),
};

function flagsOf(change: Change): string {
  return Object.entries(change)
    .map(([key, value]) => `${FLAG_OF[key as keyof Change]} ${value}`)
    .join(" ");
}
