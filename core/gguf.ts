/**
 * Control vectors as GGUF, which llama.cpp (`--control-vector`) and repeng read: directions that are added to the
 * residual stream behind blocks, at every position.
 *
 * Both count layers as this project does: `direction.l` is added to the output of block l, counted from 0. llama.cpp
 * refuses `direction.0`.
 *
 * Source: the GGUF specification of ggml, version 3; llama.cpp, `common_control_vector_load`; repeng,
 * `ControlVector.import_gguf`.
 * @module
 */

/** One direction, and where it is added. */
export interface ControlVector {
  /** Block behind which it is added, from 1. */
  readonly layer: number;
  /** What is added, f32 `[d_model]`. */
  readonly direction: Float32Array;
  /** The model's architecture, as llama.cpp and transformers call it: "olmo2". Readers show it and do not check it. */
  readonly modelHint: string;
  /** What it is, in a few words. */
  readonly description: string;
}

const MAGIC = 0x46554747; // "GGUF", little-endian
const VERSION = 3;
/** Where tensors start, and what their bytes are padded to. */
const ALIGNMENT = 32;
const TYPE = { uint32: 4, string: 8 } as const; // of metadata
const F32 = 0; // of tensors

/**
 * A control vector as the bytes of a GGUF file.
 * @throws {RangeError} If the layer is 0, which llama.cpp cannot steer, or a value is not finite.
 */
export function controlVectorGguf(
  { layer, direction, modelHint, description }: ControlVector,
): Uint8Array<ArrayBuffer> {
  if (!Number.isInteger(layer) || layer < 1) {
    throw new RangeError(
      `Cannot write a control vector for layer ${layer}: expected one from 1, as llama.cpp adds nothing behind the first block: steer it here instead`,
    );
  }
  const bad = direction.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    throw new RangeError(
      `Cannot write a control vector: expected finite values: got ${
        direction[bad]
      } at ${bad}`,
    );
  }
  const metadata = [
    ["general.architecture", "controlvector"],
    ["general.description", description],
    ["controlvector.model_hint", modelHint],
    ["controlvector.layer_count", 1], // directions in the file
  ] as const;
  const header = new Bytes();
  header.uint32(MAGIC);
  header.uint32(VERSION);
  header.uint64(1); // tensors
  header.uint64(metadata.length);
  for (const [key, value] of metadata) {
    header.text(key);
    header.uint32(typeof value === "number" ? TYPE.uint32 : TYPE.string);
    if (typeof value === "number") header.uint32(value);
    else header.text(value);
  }
  header.text(`direction.${layer}`);
  header.uint32(1); // dimensions
  header.uint64(direction.length);
  header.uint32(F32);
  header.uint64(0); // offset from where tensors start
  const start = aligned(header.length);
  const file = new Uint8Array(start + aligned(4 * direction.length));
  file.set(header.bytes());
  const { buffer, byteOffset, byteLength } = direction;
  file.set(new Uint8Array(buffer, byteOffset, byteLength), start);
  return file;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Little-endian values one after the other. */
class Bytes {
  readonly #bytes: number[] = [];

  get length(): number {
    return this.#bytes.length;
  }

  uint32(value: number): void {
    for (let shift = 0; shift < 32; shift += 8) {
      this.#bytes.push((value >>> shift) & 0xff);
    }
  }

  uint64(value: number): void {
    this.uint32(value % 2 ** 32);
    this.uint32(Math.floor(value / 2 ** 32));
  }

  /** UTF-8 behind its length. */
  text(value: string): void {
    const utf8 = new TextEncoder().encode(value);
    this.uint64(utf8.length);
    for (const byte of utf8) this.#bytes.push(byte);
  }

  bytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }
}
