/**
 * Models of a size with random weights, which are made as they are loaded: no file, and no time to speak of.
 * @module
 */
import type { Olmo2Config } from "../core/olmo2_config.ts";
import { modelShapes } from "../core/olmo2_weights.ts";
import type { Checkpoint, TensorInfo } from "../core/safetensors.ts";
import { bf16ToF32, f32ToBf16 } from "../core/dtype.ts";
import { Rng } from "../core/rng.ts";
import { formatBytes } from "./format.ts";
import { OLMO2_SIZES } from "./olmo2_sizes.ts";

/** Sizes of OLMo-2 7B, with the embedding for its head so that one of them takes memory. */
export const OLMO2_7B: Olmo2Config = {
  ...OLMO2_SIZES["7B"],
  tied_embeddings: true,
};

/**
 * Checks that a model fits before it is made.
 * @param budget Bytes that may be taken; undefined where nobody knows.
 * @throws {RangeError} If it does not.
 */
export function checkFits(
  what: string,
  bytes: number,
  budget: number | undefined,
): void {
  if (budget === undefined || bytes <= budget) return;
  throw new RangeError(
    `Cannot run ${what}: expected ${formatBytes(bytes)} of memory: got ${
      formatBytes(budget)
    }: leave --size out, or free some`,
  );
}

/** Random bytes that repeat: 16 MiB of them are drawn once. */
const BLOCK_BYTES = 2 ** 24;
/** Standard deviation of weights, as models are initialized. */
const WEIGHT_SCALE = 0.02;
let block: Uint8Array<ArrayBuffer> | undefined;

/** Packed bf16 numbers from N(0, {@link WEIGHT_SCALE}), always the same. */
function randomBlock(): Uint8Array<ArrayBuffer> {
  const rng = new Rng(0);
  const values = Float32Array.from(
    { length: BLOCK_BYTES / 2 },
    () => WEIGHT_SCALE * rng.normal(),
  );
  return new Uint8Array(f32ToBf16(values).buffer);
}

/** Bytes [start, end) of an endless run of packed bf16 numbers. */
export function randomBytes(
  start: number,
  end: number,
): Uint8Array<ArrayBuffer> {
  block ??= randomBlock();
  const bytes = new Uint8Array(end - start);
  for (let at = start; at < end;) {
    const from = at % BLOCK_BYTES;
    const size = Math.min(BLOCK_BYTES - from, end - at);
    bytes.set(block.subarray(from, from + size), at - start);
    at += size;
  }
  return bytes;
}

/** A checkpoint in bf16 with the tensors of a model, which lie nowhere. */
export function randomCheckpoint(config: Olmo2Config): Checkpoint {
  const infos = new Map<string, TensorInfo>();
  let start = 0;
  for (const [name, shape] of modelShapes(config)) {
    const end = start + 2 * shape.reduce((product, size) => product * size, 1);
    infos.set(name, { name, dtype: "BF16", shape, start, end });
    start = end;
  }
  const info = (name: string): TensorInfo => {
    const found = infos.get(name);
    if (found) return found;
    throw new RangeError(`Cannot make tensor "${name}": the model has none`);
  };
  const bytes = (name: string, startRow?: number, endRow?: number) => {
    const { start, end, shape } = info(name);
    const rowBytes = (end - start) / shape[0]!;
    return randomBytes(
      start + (startRow ?? 0) * rowBytes,
      start + (endRow ?? shape[0]!) * rowBytes,
    );
  };
  return {
    name: "random weights",
    has: (name) => infos.has(name),
    names: () => [...infos.keys()],
    fileOf: () => "random weights",
    info,
    bytes: (...rows) => Promise.resolve(bytes(...rows)),
    floats: (name) =>
      Promise.resolve(bf16ToF32(new Uint16Array(bytes(name).buffer))),
  };
}
