/**
 * Safetensors files, and the checkpoints of Hugging Face model folders that lie
 * in one of them or in many: tensors read lazily by name and by rows. Files come
 * from strangers, so a header is checked before it is believed.
 * @module
 */
import { z } from "zod";
import { checkJson } from "./check_json.ts";
import { bf16ToF32, f16ToF32 } from "./dtype.ts";
import {
  readHeader,
  type StoredDtype,
  type TensorInfo,
} from "./safetensors_header.ts";
import { checkRange, type Folder, readJson, type Source } from "./source.ts";
import { missingTensor } from "./tensor_file.ts";

export type { StoredDtype, TensorInfo } from "./safetensors_header.ts";
export { safetensorsChunks, type TensorToWrite } from "./safetensors_writer.ts";

const SINGLE_FILE = "model.safetensors";
const INDEX_FILE = "model.safetensors.index.json";

/** An open safetensors file. Only its header is in memory. */
export class Safetensors {
  /** The file. */
  readonly source: Source;
  /** All tensors by name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The texts under `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;

  private constructor(
    source: Source,
    tensors: ReadonlyMap<string, TensorInfo>,
    metadata: Readonly<Record<string, string>>,
  ) {
    this.source = source;
    this.tensors = tensors;
    this.metadata = metadata;
  }

  /**
   * Reads and checks the header.
   * @throws {SyntaxError} If it is not JSON of the expected form, or has a key twice.
   * @throws {TypeError} If a dtype is unknown.
   * @throws {RangeError} If lengths, shapes or offsets do not fit each other and the file.
   */
  static async open(source: Source): Promise<Safetensors> {
    const { tensors, metadata } = await readHeader(source);
    return new Safetensors(source, tensors, metadata);
  }

  /** What errors call it: the file. */
  get name(): string {
    return this.source.name;
  }

  /**
   * What the header says of one tensor.
   * @throws {RangeError} If there is none of this name: lists the nearest.
   */
  info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (info) return info;
    throw missingTensor(this.source.name, name, this.tensors.keys());
  }

  /**
   * The stored bytes of a tensor, or of its rows [startRow, endRow) along the first dimension.
   * @throws {RangeError} If there is no such tensor or row.
   */
  async bytes(
    name: string,
    startRow?: number,
    endRow?: number,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { start, end, shape } = this.info(name);
    if (startRow === undefined && endRow === undefined) {
      return await this.source.read(start, end);
    }
    const rows = shape[0] ?? 0;
    const first = startRow ?? 0;
    const last = endRow ?? rows;
    const whole = Number.isInteger(first) && Number.isInteger(last);
    if (!whole || first < 0 || first > last || last > rows) {
      throw new RangeError(
        `Cannot read "${this.source.name}": expected rows of tensor "${name}" inside [0, ${rows}): got [${first}, ${last})`,
      );
    }
    const rowBytes = rows === 0 ? 0 : (end - start) / rows;
    return await this.source.read(
      start + first * rowBytes,
      start + last * rowBytes,
    );
  }

  /**
   * The bytes [start, end) of a tensor, counted from its first.
   * @throws {RangeError} If there is no such tensor, or the range is not inside it.
   */
  async read(
    name: string,
    start: number,
    end: number,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const info = this.info(name);
    checkRange(this.name, info.end - info.start, start, end);
    return await this.source.read(info.start + start, info.start + end);
  }

  /**
   * A tensor's values as f32, row-major. BF16 and F16 are exact, F64 is rounded.
   * @throws {TypeError} If it is no float tensor.
   */
  async floats(name: string): Promise<Float32Array<ArrayBuffer>> {
    const { dtype } = this.info(name);
    const convert = FLOATS[dtype];
    if (!convert) throw this.#wrongDtype(name, "F32, F16, BF16 or F64");
    return convert((await this.bytes(name)).buffer);
  }

  /**
   * A tensor's values as i32, row-major.
   * @throws {TypeError} If it is no integer tensor.
   * @throws {RangeError} If a value does not fit in 32 bits.
   */
  async ints(name: string): Promise<Int32Array<ArrayBuffer>> {
    const view = INTEGERS[this.info(name).dtype];
    if (!view) throw this.#wrongDtype(name, "an integer dtype");
    const stored = view((await this.bytes(name)).buffer);
    const values = new Int32Array(stored.length);
    for (let i = 0; i < stored.length; i++) {
      const value = Number(stored[i]);
      values[i] = value;
      if (values[i] !== value) {
        throw new RangeError(
          `Cannot read "${this.source.name}": expected values of 32 bits in tensor "${name}": got ${
            stored[i]
          } at ${i}`,
        );
      }
    }
    return values;
  }

  #wrongDtype(name: string, expected: string): TypeError {
    const { dtype, shape } = this.info(name);
    return new TypeError(
      `Cannot read "${this.source.name}": expected tensor "${name}" to be ${expected}: got ${dtype}[${
        shape.join(", ")
      }]`,
    );
  }
}

const FLOATS: Partial<
  Record<StoredDtype, (buffer: ArrayBuffer) => Float32Array<ArrayBuffer>>
> = {
  F32: (buffer) => new Float32Array(buffer),
  F16: (buffer) => f16ToF32(new Uint16Array(buffer)),
  BF16: (buffer) => bf16ToF32(new Uint16Array(buffer)),
  F64: (buffer) => new Float32Array(new Float64Array(buffer)),
};

const INTEGERS: Partial<
  Record<
    StoredDtype,
    (buffer: ArrayBuffer) => ArrayLike<number> | ArrayLike<bigint>
  >
> = {
  BOOL: (buffer) => new Uint8Array(buffer),
  U8: (buffer) => new Uint8Array(buffer),
  I8: (buffer) => new Int8Array(buffer),
  U16: (buffer) => new Uint16Array(buffer),
  I16: (buffer) => new Int16Array(buffer),
  U32: (buffer) => new Uint32Array(buffer),
  I32: (buffer) => new Int32Array(buffer),
  U64: (buffer) => new BigUint64Array(buffer),
  I64: (buffer) => new BigInt64Array(buffer),
};

/** The tensors of a model, wherever they lie. Headers are in memory, weights are not. */
export interface Checkpoint {
  /** What errors call it: the folder. */
  readonly name: string;
  /** Whether there is a tensor of this name. */
  has(name: string): boolean;
  /** Names of all tensors. */
  names(): string[];
  /**
   * What errors call the file that holds a tensor.
   * @throws {RangeError} If there is none of this name: lists the nearest.
   */
  fileOf(name: string): string;
  /**
   * Dtype and shape of a tensor.
   * @throws {RangeError} If there is none of this name: lists the nearest.
   */
  info(name: string): TensorInfo;
  /** The stored bytes of a tensor, or of its rows [startRow, endRow); see `Safetensors.bytes`. */
  bytes(
    name: string,
    startRow?: number,
    endRow?: number,
  ): Promise<Uint8Array<ArrayBuffer>>;
  /** A tensor's values as f32, row-major; see `Safetensors.floats`. */
  floats(name: string): Promise<Float32Array<ArrayBuffer>>;
}

/**
 * Opens `model.safetensors`, or all shards of `model.safetensors.index.json`.
 * Every header is read and checked.
 * @throws {Error} If there is neither file, or a shard is missing: names it.
 * @throws {RangeError} If a shard lacks a tensor that the index places there, or is damaged.
 */
export async function openCheckpoint(folder: Folder): Promise<Checkpoint> {
  if (await folder.has(SINGLE_FILE)) {
    const file = await Safetensors.open(await folder.open(SINGLE_FILE));
    const names = file.tensors.keys();
    return checkpoint(folder.name, new Map(names.map((name) => [name, file])));
  }
  if (!await folder.has(INDEX_FILE)) {
    throw new Error(
      `Cannot open the weights in "${folder.name}": expected ${SINGLE_FILE} or ${INDEX_FILE}: got neither: fetch the whole model folder`,
    );
  }
  const weightMap = await readIndex(folder);
  const shards = new Map<string, Safetensors>();
  for (const shard of new Set(weightMap.values())) {
    if (!await folder.has(shard)) {
      throw new Error(
        `Cannot open the weights in "${folder.name}": shard "${shard}" of ${INDEX_FILE} is missing: fetch it again`,
      );
    }
    shards.set(shard, await Safetensors.open(await folder.open(shard)));
  }
  const files = new Map<string, Safetensors>();
  for (const [name, shard] of weightMap) {
    const file = shards.get(shard)!;
    file.info(name);
    files.set(name, file);
  }
  return checkpoint(folder.name, files);
}

function checkpoint(
  folder: string,
  files: ReadonlyMap<string, Safetensors>,
): Checkpoint {
  const fileOf = (name: string): Safetensors => {
    const file = files.get(name);
    if (file) return file;
    throw missingTensor(folder, name, files.keys());
  };
  return {
    name: folder,
    has: (name) => files.has(name),
    names: () => [...files.keys()],
    fileOf: (name) => fileOf(name).source.name,
    info: (name) => fileOf(name).info(name),
    // Async, so that a missing tensor rejects.
    bytes: async (name, startRow, endRow) =>
      await fileOf(name).bytes(name, startRow, endRow),
    floats: async (name) => await fileOf(name).floats(name),
  };
}

/** A shard lies in the folder itself: a path would reach other files of the machine. */
const Shard = z.string().regex(
  /^[^/\\:\0]+\.safetensors$/,
  "expected a file of the same folder that ends in .safetensors",
);
const Index = z.object({ weight_map: z.record(z.string(), Shard) });

/** Tensor name → shard file. */
async function readIndex(folder: Folder): Promise<Map<string, string>> {
  const source = await folder.open(INDEX_FILE);
  const index = checkJson(Index, await readJson(source), source.name);
  return new Map(Object.entries(index.weight_map));
}
