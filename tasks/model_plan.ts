/**
 * What replying with a model will hold in memory, and what to change where it does not fit.
 * @module
 */
import { PAGE_TOKENS } from "../core/kv_cache.ts";
import type { Olmo2Config } from "../core/olmo2_config.ts";
import type { QuantizedDtype } from "../gpu/mod.ts";
import type { PlanRow } from "./cli.ts";
import { formatBytes, formatCount } from "./format.ts";
import { passBytes, type StoredModel, weightBytes } from "./memory.ts";
import type { MemoryBudget } from "./memory_plan.ts";

/** Tokens of a prompt that go through the model at once, at most. */
const PASS_TOKENS = 2048;

/** A model, and what it is to hold at once. */
export interface ModelUse {
  readonly model: StoredModel;
  readonly quantize: QuantizedDtype | undefined;
  /** Tokens of a prompt and its reply. */
  readonly tokens: number;
  /** Replies at once; 1 when absent. */
  readonly rows?: number;
  /** Blocks that have keys and values of their own; all when absent. */
  readonly nCaches?: number;
  /** Fewer tokens make no sense, and are not offered; 256 when absent. */
  readonly leastTokens?: number;
  /** Flag that sets `tokens`; `--context` when absent. */
  readonly contextFlag?: string;
}

/** A change that makes a model fit, as flags. */
export interface ModelChange {
  /** As they are typed: "--quantize q8". */
  readonly flags: string;
  readonly bytes: number;
}

/** Where the memory goes. */
export interface ModelPlan {
  readonly rows: readonly PlanRow[];
  readonly bytes: number;
  /** Why it cannot run, in the form "expected … : got …"; absent where it can. */
  readonly problem?: string;
  /** What makes it run; empty where nothing is wrong, or nothing helps. */
  readonly changes: readonly ModelChange[];
}

/** What a model that replies holds on the GPU, in bytes: weights, keys and values in whole pages, a pass, logits. */
export function modelMemory(use: ModelUse): PlanRow[] {
  const { model, quantize, tokens, rows = 1 } = use;
  const { config } = model;
  const weights = weightBytes(model, quantize);
  const nTokens = rows * PAGE_TOKENS * Math.ceil(tokens / PAGE_TOKENS);
  const inPass = Math.min(PASS_TOKENS, rows * tokens);
  return [
    { what: "embedding", bytes: weights.embedding },
    { what: `${config.n_layers} blocks`, bytes: weights.blocks },
    ...(weights.head > 0 ? [{ what: "head", bytes: weights.head }] : []),
    {
      what: `keys and values of ${formatCount(nTokens)} tokens`,
      bytes: nTokens * cacheBytes(config, use.nCaches),
    },
    {
      what: `a pass of ${formatCount(inPass)} tokens`,
      bytes: passBytes(config, inPass, 0),
    },
    { what: "logits", bytes: 4 * config.vocab_size * rows },
  ];
}

/** Keys and values of a token, f32. */
function cacheBytes(
  { n_layers, n_kv_heads, d_head }: Olmo2Config,
  nCaches = n_layers,
): number {
  return 4 * 2 * nCaches * n_kv_heads * d_head;
}

function total(use: ModelUse): number {
  return modelMemory(use).reduce((sum, { bytes }) => sum + bytes, 0);
}

/** The most tokens that fit, up to those of the use; in whole pages, 0 where not even one page does. */
export function longestContext(use: ModelUse, most: number): number {
  const fits = (tokens: number): boolean => total({ ...use, tokens }) <= most;
  if (fits(use.tokens)) return use.tokens;
  // In pages: the first fits or is 0, the second does not.
  let [low, high] = [0, Math.ceil(use.tokens / PAGE_TOKENS)];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (fits(middle * PAGE_TOKENS)) low = middle;
    else high = middle;
  }
  return low * PAGE_TOKENS;
}

/**
 * Adds up what a model takes and compares it with the budget. Where it does not fit, every change that is offered was
 * planned too, and fits.
 */
export function planModel(use: ModelUse, budget: MemoryBudget): ModelPlan {
  const { gpu = Infinity, host = Infinity, isShared } = budget;
  const most = isShared ? Math.min(gpu, host) : gpu;
  const rows = modelMemory(use);
  const bytes = total(use);
  if (bytes <= most) return { rows, bytes, changes: [] };
  const largest = rows.toSorted((a, b) => b.bytes - a.bytes)[0]!;
  const problem = `expected at most ${formatBytes(most)} ${
    isShared ? "of memory, which this GPU shares with the host" : "on the GPU"
  }: got ${formatBytes(bytes)}, the most of it ${largest.what} with ${
    formatBytes(largest.bytes)
  }`;
  return { rows, bytes, problem, changes: changesFor(use, most) };
}

/** Throws if a plan has a problem. */
export function checkModelPlan({ problem, changes }: ModelPlan): void {
  if (problem === undefined) return;
  const ways = changes.map(({ flags, bytes }) =>
    `${flags} (${formatBytes(bytes)})`
  );
  throw new RangeError(
    `Cannot load the model: ${problem}: ${
      ways.length === 0
        ? "neither quantization nor a shorter context helps: take another GPU, or a smaller model"
        : `take ${ways.join(" or ")}`
    }`,
  );
}

/** Each change alone if any does, else less precision with a shorter context. */
function changesFor(use: ModelUse, most: number): ModelChange[] {
  const smaller = (["q8", "q4"] as const).filter((type) =>
    use.quantize === undefined || (use.quantize === "q8" && type === "q4")
  ).map((quantize): ModelUse => ({ ...use, quantize }));
  const shorter = (use: ModelUse): ModelUse[] => {
    const tokens = longestContext(use, most);
    return tokens >= (use.leastTokens ?? 256) ? [{ ...use, tokens }] : [];
  };
  const alone = [...smaller, ...shorter(use)]
    .filter((use) => total(use) <= most);
  const found = alone.length > 0 ? alone : smaller.flatMap(shorter);
  return found.map((change) => ({
    flags: [
      ...(change.quantize === use.quantize
        ? []
        : [`--quantize ${change.quantize}`]),
      ...(change.tokens === use.tokens
        ? []
        : [`${use.contextFlag ?? "--context"} ${change.tokens}`]),
    ].join(" "),
    bytes: total(change),
  }));
}
