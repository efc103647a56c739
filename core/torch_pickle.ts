/**
 * What the pickle of a PyTorch checkpoint may name: tensors, their storages, ordered dicts. No other name is taken,
 * and nothing of Python is run.
 * Source: PyTorch, `torch/serialization.py` and `torch/_utils.py`.
 * @module
 */
import { pickledName, type PickleGlobal, readPickle } from "./pickle.ts";
import type { StoredDtype } from "./safetensors_header.ts";

/** A run of numbers that lies in the archive; tensors are views of it. */
export class TorchStorage {
  /** Element type. */
  readonly dtype: StoredDtype;
  /** Name of its file in the archive, under `data/`. */
  readonly key: string;
  /** Number of elements. */
  readonly length: number;

  /** A storage as its id in the pickle tells it. */
  constructor(dtype: StoredDtype, key: string, length: number) {
    this.dtype = dtype;
    this.key = key;
    this.length = length;
  }
}

/** A tensor: a view of a storage that lies inside it. */
export class TorchTensor {
  /** Where its values lie. */
  readonly storage: TorchStorage;
  /** Its first element in the storage. */
  readonly offset: number;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Elements between neighbors along each dimension. */
  readonly strides: readonly number[];

  /** A view as its rebuilding call in the pickle tells it. */
  constructor(
    storage: TorchStorage,
    offset: number,
    shape: readonly number[],
    strides: readonly number[],
  ) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }
}

const STORAGES: Readonly<Record<string, StoredDtype>> = {
  "torch DoubleStorage": "F64",
  "torch FloatStorage": "F32",
  "torch HalfStorage": "F16",
  "torch BFloat16Storage": "BF16",
  "torch LongStorage": "I64",
  "torch IntStorage": "I32",
  "torch ShortStorage": "I16",
  "torch CharStorage": "I8",
  "torch ByteStorage": "U8",
  "torch BoolStorage": "BOOL",
};

/** Names that stand in the settings beside weights, and mean nothing here. */
const PLAIN_NAMES: ReadonlySet<string> = new Set([
  "torch float64",
  "torch float32",
  "torch float16",
  "torch bfloat16",
]);

/** More than any weight has. */
const MAX_DIMENSIONS = 8;

/**
 * The value of a checkpoint's pickle; see `readPickle`. Tensors and storages in it are of this module's classes.
 * @param file What errors call it.
 * @throws {Error} As `readPickle`.
 * @throws {TypeError} If a tensor does not fit its storage, or a storage's file is told twice in two ways.
 */
export function readTorchPickle(file: string, bytes: Uint8Array): unknown {
  const refuse = (expected: string): TypeError =>
    new TypeError(
      `Cannot read "${file}": expected ${expected}: got something else: the file is damaged: fetch it again`,
    );
  const storages = new Map<string, TorchStorage>();
  const calls: Readonly<Record<string, PickleGlobal["call"]>> = {
    "collections OrderedDict": (args) => {
      if (args.length === 0) return new Map();
      throw refuse("an ordered dict that is filled item by item");
    },
    "torch._utils _rebuild_tensor_v2": (args) => {
      const tensor = tensorOf(args);
      if (tensor) return tensor;
      throw refuse("a tensor that lies inside its storage");
    },
    "torch._utils _rebuild_parameter": ([data]) => {
      if (data instanceof TorchTensor) return data;
      throw refuse("a parameter that is a tensor");
    },
    "torch Size": ([sizes]) => sizes,
  };
  return readPickle(file, bytes, {
    find(name): PickleGlobal | undefined {
      const call = Object.hasOwn(calls, name) ? calls[name] : undefined;
      if (call) return { name, call };
      const isPlain = PLAIN_NAMES.has(name) || Object.hasOwn(STORAGES, name);
      return isPlain ? { name } : undefined;
    },
    persistent(id): TorchStorage {
      const storage = storageOf(id);
      const known = storages.get(storage?.key ?? "");
      const isSame = !known || known.dtype === storage?.dtype &&
          known.length === storage.length;
      if (!storage || !isSame) throw refuse("a storage of one type and length");
      storages.set(storage.key, storage);
      return storage;
    },
  });
}

/** A storage by its id: `("storage", class, key, device, number of elements)`. */
function storageOf(id: unknown): TorchStorage | undefined {
  if (!Array.isArray(id) || id.length !== 5 || id[0] !== "storage") return;
  const name = pickledName(id[1]) ?? "";
  const dtype = Object.hasOwn(STORAGES, name) ? STORAGES[name] : undefined;
  const [, , key, , length] = id as unknown[];
  if (!dtype || typeof key !== "string" || !isSize(length)) return;
  return new TorchStorage(dtype, key, length);
}

/** A tensor by the arguments `(storage, offset, sizes, strides, …)`; undefined if it is not inside its storage. */
function tensorOf(args: readonly unknown[]): TorchTensor | undefined {
  const [storage, offset, shape, strides] = args;
  if (!(storage instanceof TorchStorage) || !isSize(offset)) return;
  if (!isSizes(shape) || !isSizes(strides)) return;
  if (shape.length !== strides.length) return;
  const isEmpty = shape.includes(0);
  const last = shape.reduce(
    (sum, size, i) => sum + (size - 1) * strides[i]!,
    offset,
  );
  if (isEmpty ? offset <= storage.length : last < storage.length) {
    return new TorchTensor(storage, offset, shape, strides);
  }
  return;
}

function isSize(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isSizes(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.length <= MAX_DIMENSIONS &&
    value.every(isSize);
}
