/**
 * Checkpoints as `torch.save` writes them: a zip file with a pickle that describes the tensors, and one stored entry
 * for each of their storages. The pickle is read by a machine that runs nothing; see `pickle.ts`.
 * Source: PyTorch, `torch/serialization.py`.
 * @module
 */
import { storedBytes, storedElementBytes } from "./safetensors_header.ts";
import { checkRange, type Source } from "./source.ts";
import {
  missingTensor,
  type StoredTensor,
  type TensorFile,
} from "./tensor_file.ts";
import { readTorchPickle, TorchTensor } from "./torch_pickle.ts";
import { ZipFile } from "./zip.ts";

/** What `torch.compile` puts in front of the names of a module's parameters. */
const COMPILED = "_orig_mod.";
/** Larger pickles are refused, as `readPickle` does. */
const MAX_PICKLE_BYTES = 2 ** 20;
/** Zip files begin so. */
const ZIP_START = [0x50, 0x4b, 0x03, 0x04];

/** An open checkpoint. Only its description is in memory. */
export class TorchFile implements TensorFile {
  /** What errors call it. */
  readonly name: string;
  /** The tensors of its state dict by name, without `_orig_mod.`. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly #places: ReadonlyMap<string, Place>;

  private constructor(name: string, places: ReadonlyMap<string, Place>) {
    this.name = name;
    this.#places = places;
    this.tensors = new Map(
      places.entries().map(([key, { info }]) => [key, info]),
    );
  }

  /**
   * Reads the description: of the state dict that the file is, or has under `model_state_dict`. What lies beside it,
   * such as the state of an optimizer, is passed over.
   * @throws {SyntaxError} If it is no checkpoint, of the form before PyTorch 1.6, or damaged.
   * @throws {TypeError} If its pickle names anything but tensors and ordered dicts: names it. Nothing is run.
   * @throws {RangeError} If tensors do not fit what is stored.
   */
  static async open(source: Source): Promise<TorchFile> {
    const { name } = source;
    const start = await source.read(0, Math.min(4, source.byteLength));
    if (!ZIP_START.every((byte, i) => start[i] === byte)) {
      throw new SyntaxError(
        `Cannot read "${name}": expected a checkpoint of PyTorch 1.6 or newer, which is a zip file: got another: load it there and save it again with torch.save`,
      );
    }
    const zip = await ZipFile.open(source);
    const pickles = [...zip.entries.keys()].filter((entry) =>
      /^[^/]*\/data\.pkl$/.test(entry)
    );
    const [pickle] = pickles;
    if (pickle === undefined || pickles.length > 1) {
      throw new SyntaxError(
        `Cannot read "${name}": expected one entry data.pkl, as torch.save writes: got ${pickles.length}: save it again with torch.save`,
      );
    }
    const root = pickle.slice(0, -"data.pkl".length);
    await checkByteOrder(zip, root);
    const bytes = await zip.bytes(pickle, MAX_PICKLE_BYTES);
    const tensors = stateDict(name, readTorchPickle(name, bytes));
    const places = new Map<string, Place>();
    for (const [key, tensor] of tensors) {
      places.set(key, await placeOf(zip, root, key, tensor));
    }
    return new TorchFile(name, places);
  }

  /**
   * What the pickle says of one tensor.
   * @throws {RangeError} If there is none of this name: lists the nearest.
   */
  info(name: string): StoredTensor {
    return this.#place(name).info;
  }

  /** The bytes [start, end) of a tensor; see `TensorFile.read`. */
  async read(
    name: string,
    start: number,
    end: number,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { storage, first, info } = this.#place(name);
    const title = `${this.name}" (tensor "${name})`;
    checkRange(title, storedBytes(info.dtype, info.shape), start, end);
    return await storage.read(first + start, first + end);
  }

  #place(name: string): Place {
    const place = this.#places.get(name);
    if (place) return place;
    throw missingTensor(this.name, name, this.#places.keys());
  }
}

/** Where a tensor lies. */
interface Place {
  readonly info: StoredTensor;
  readonly storage: Source;
  /** Its first byte in the storage. */
  readonly first: number;
}

/** A checkpoint says how it orders bytes since PyTorch 2.1; older ones are of machines as they all are. */
async function checkByteOrder(zip: ZipFile, root: string): Promise<void> {
  const entry = `${root}byteorder`;
  if (!zip.entries.has(entry)) return;
  const order = new TextDecoder().decode(await zip.bytes(entry, 16));
  if (order === "little") return;
  throw new SyntaxError(
    `Cannot read "${zip.source.name}": expected byte order little: got ${
      JSON.stringify(order)
    }: save it again on a little-endian machine`,
  );
}

/** The tensors of the state dict, wherever the checkpoint has it. */
function stateDict(
  file: string,
  value: unknown,
): ReadonlyMap<string, TorchTensor> {
  const dict = value instanceof Map
    ? value.get("model_state_dict") ?? value
    : value;
  const tensors = new Map<string, TorchTensor>();
  for (const [key, tensor] of dict instanceof Map ? dict : []) {
    if (typeof key !== "string" || !(tensor instanceof TorchTensor)) continue;
    const name = key.replaceAll(COMPILED, "");
    if (tensors.has(name)) {
      throw new TypeError(
        `Cannot read "${file}": expected one tensor "${name}": got two, with and without ${COMPILED}: save the state dict of one module`,
      );
    }
    tensors.set(name, tensor);
  }
  if (tensors.size > 0) return tensors;
  throw new TypeError(
    `Cannot read "${file}": expected a state dict, alone or as model_state_dict: got no tensors: save module.state_dict()`,
  );
}

/** Finds a tensor's bytes: without gaps, as they are or as those of the transpose. */
async function placeOf(
  zip: ZipFile,
  root: string,
  name: string,
  tensor: TorchTensor,
): Promise<Place> {
  const { storage: { dtype, key, length }, shape, strides } = tensor;
  const file = zip.source.name;
  const entry = `${root}data/${key}`;
  const expected = storedBytes(dtype, [length]);
  const { byteLength = -1, isCompressed } = zip.entries.get(entry) ?? {};
  if (byteLength !== expected || isCompressed) {
    throw new RangeError(
      `Cannot read "${file}": expected ${expected} bytes in the entry of tensor "${name}": got ${
        byteLength < 0 ? "none" : isCompressed ? "compressed ones" : byteLength
      }: the file is damaged, or was packed again: fetch it again`,
    );
  }
  const storage = await zip.open(entry);
  const isTransposed = !isContiguous(shape, strides);
  if (
    isTransposed &&
    !(shape.length === 2 &&
      isContiguous(shape.toReversed(), strides.toReversed()))
  ) {
    throw new TypeError(
      `Cannot read "${file}": expected tensor "${name}" without gaps: got shape [${shape}] with strides [${strides}]: save it after .contiguous()`,
    );
  }
  const info = { name, dtype, shape, ...(isTransposed && { isTransposed }) };
  return {
    info,
    storage,
    first: tensor.offset * storedElementBytes(dtype),
  };
}

/** Whether the values of a view lie one behind the other, the last index running fastest. */
function isContiguous(
  shape: readonly number[],
  strides: readonly number[],
): boolean {
  if (shape.includes(0)) return true;
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return false;
    step *= shape[i]!;
  }
  return true;
}
