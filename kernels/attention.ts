import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import { attentionJoin } from "./attention_join.ts";
import { attentionRegisters, LANES } from "./attention_registers.ts";
import { attentionTiles, TILE_TOKENS } from "./attention_tiles.ts";
import { attentionWide } from "./attention_wide.ts";

/** How the tokens of a pass attend: by which kernel, in which blocks. */
export interface AttentionPlan {
  /**
   * `registers`: queries share loads of an invocation, for software drivers. `tiles`: queries share keys in workgroup
   * memory, and `wide`: lanes share the keys of one token, for graphics cards.
   */
  readonly kind: "registers" | "tiles" | "wide";
  /** Most tokens of a block. */
  readonly blockTokens: number;
  /** Runs of tokens that follow each other in one row: first token, tokens, row, position of the first; u32 `[n_blocks, 4]`. */
  readonly blocks: Uint32Array<ArrayBuffer>;
  /** How many they are. */
  readonly nBlocks: number;
  /** Keys of the token that has most. */
  readonly nKeys: number;
}

/** What {@link attention} reads and writes. */
export interface AttentionTensors {
  /** f32 `[T, d_q]` */
  readonly q: Tensor;
  /** f32 `[slots, d_kv]` */
  readonly K: Tensor;
  /** f32 `[slots, d_kv]` */
  readonly V: Tensor;
  /** The plan's blocks, u32 `[n_blocks, 4]` */
  readonly blocks: Tensor;
  /** Page of each run of positions, u32 `[rows, pages_per_row]` */
  readonly pages: Tensor;
  /** f32 `[T, d_q]` */
  readonly z: Tensor;
}

/** Sizes of a head and of a page. */
export interface AttentionSizes {
  readonly d_head: number;
  /** Positions of a page. */
  readonly pageTokens: number;
}

/** Tokens of a block that share keys; in registers, more take longer to compile and are little faster. */
const MOST_TOKENS = { registers: 8, tiles: TILE_TOKENS };
/** A block of one token among many costs as much as two tokens that share nothing. */
const LEAST_IN_REGISTERS = 2;
/** Below, workgroups of one token each do less than those that compute whole tiles, mostly of nothing. */
const LEAST_IN_TILES = 8;
/** Heads of one key-value head that share its keys. */
const MOST_HEADS = 8;
/** Workgroups that fill a large graphics card, and that spread evenly over the cores of a CPU. */
const MANY_WORKGROUPS = { card: 512, software: 16 };
/** Keys that are worth a workgroup of their own. */
const LEAST_KEYS = 256;
/** Mesa's software driver ends all loops of an invocation once they have taken 65,535 steps together. */
const MOST_STEPS = 60_000;

/**
 * Chooses how tokens attend.
 * @param places Row and position of each, `[T, 2]`.
 */
export function planAttention(
  { isSoftware }: Pick<Gpu, "isSoftware">,
  places: Uint32Array,
): AttentionPlan {
  const [kind, alone, least] = isSoftware
    ? ["registers", "registers", LEAST_IN_REGISTERS] as const
    : ["tiles", "wide", LEAST_IN_TILES] as const;
  const shared = attentionPlan(kind, MOST_TOKENS[kind], places);
  const isShared = shared.nBlocks * least <= places.length / 2;
  return isShared ? shared : attentionPlan(alone, 1, places);
}

/** The plan of a kind with blocks of a size; {@link planAttention} chooses both. */
export function attentionPlan(
  kind: AttentionPlan["kind"],
  blockTokens: number,
  places: Uint32Array,
): AttentionPlan {
  const blocks = Uint32Array.from(blocksOf(places, blockTokens));
  let nKeys = 0;
  for (let t = 0; t < places.length; t += 2) {
    nKeys = Math.max(nKeys, places[t + 1]! + 1);
  }
  return { kind, blockTokens, blocks, nBlocks: blocks.length / 4, nKeys };
}

/** Runs of up to `most` tokens that follow each other in one row. */
function blocksOf(places: Uint32Array, most: number): number[] {
  const blocks: number[] = [];
  let n = 0;
  for (let t = 0; t < places.length / 2; t++) {
    const [row, position] = [places[2 * t]!, places[2 * t + 1]!];
    const follows = t > 0 && places[2 * t - 2] === row &&
      places[2 * t - 1]! + 1 === position;
    if (follows && n < most) {
      blocks[blocks.length - 3] = ++n;
    } else {
      n = 1;
      blocks.push(t, n, row, position);
    }
  }
  return blocks;
}

/**
 * Records z[t, h] = Σ_s softmax_s(q[t, h] · K[slot(s), h'] / √d_head) V[slot(s), h'] over s = 0 .. position(t):
 * causal, over the token's own row of the cache, with `slot(s) = pages[row, s / pageTokens] · pageTokens + s % pageTokens`
 * and h' the key-value head that h shares with others.
 */
export function attention(
  rec: Recorder,
  tensors: AttentionTensors,
  plan: AttentionPlan,
  { d_head, pageTokens }: AttentionSizes,
): void {
  const D4 = d_head / 4;
  const scale = 1 / Math.sqrt(d_head);
  const sizes = { D4, PAGE_TOKENS: pageTokens, scale };
  if (plan.kind === "tiles") return attentionTiles.run(rec, tensors, sizes);
  const { z, ...inputs } = tensors;
  const [T, d_q] = inputs.q.shape as [number, number];
  const nHeads = d_q / d_head;
  // Tokens of a block share keys already.
  const heads = plan.blockTokens > 1
    ? 1
    : largestDivisor(d_q / inputs.K.shape[1]!, MOST_HEADS);
  const nTiles = plan.nBlocks * nHeads / heads;
  const { nParts, partKeys } = partsOf(plan, nTiles, { d_head, pageTokens });
  const isPart = nParts > 1;
  const sums = isPart
    ? rec.scratch("attention parts", "f32", [T * nHeads * nParts, d_head + 4])
    : z;
  const parts = { n_parts: nParts, part_keys: partKeys };
  if (plan.kind === "registers") {
    const tile = { tokens: plan.blockTokens, heads, isPart };
    const kernel = attentionRegisters(tile, pageTokens);
    kernel.run(rec, { ...inputs, sums }, { D4, scale, ...parts });
  } else {
    attentionWide.run(rec, { ...inputs, sums }, {
      ...sizes,
      ...parts,
      HEADS: heads,
      IS_PART: Number(isPart),
    });
  }
  if (isPart) attentionJoin.run(rec, { sums, z }, { D4, n_parts: nParts });
}

/** Splits keys where there are too few workgroups without, or more keys than an invocation may take. */
function partsOf(
  { kind, nKeys }: AttentionPlan,
  nTiles: number,
  { d_head, pageTokens }: AttentionSizes,
): { nParts: number; partKeys: number } {
  const isWide = kind === "wide";
  const nWorkgroups = isWide ? nTiles : Math.ceil(nTiles / LANES);
  const wanted = Math.ceil(
    MANY_WORKGROUPS[isWide ? "card" : "software"] / nWorkgroups,
  );
  const worthwhile = Math.floor(nKeys / LEAST_KEYS);
  const pageSteps = 2 * (d_head / 4) + 1;
  const needed = isWide
    ? 1
    : Math.ceil(nKeys / (pageTokens * Math.floor(MOST_STEPS / pageSteps)));
  const nParts = Math.max(1, needed, Math.min(wanted, worthwhile));
  const partKeys = pageTokens * Math.ceil(nKeys / nParts / pageTokens);
  return { nParts: Math.ceil(nKeys / partKeys), partKeys };
}

/** The largest divisor of `n` that is at most `most`. */
function largestDivisor(n: number, most: number): number {
  let divisor = Math.min(n, most);
  while (n % divisor !== 0) divisor--;
  return divisor;
}
