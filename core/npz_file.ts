/**
 * Files of `numpy.savez` and `savez_compressed`: a zip file with one `.npy` for each array. Headers are matched
 * against the one form that NumPy writes; arrays of objects, which are pickles, are refused.
 * Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 * @module
 */
import { storedBytes, type StoredDtype } from "./safetensors_header.ts";
import { checkRange, type Source } from "./source.ts";
import {
  missingTensor,
  type StoredTensor,
  type TensorFile,
} from "./tensor_file.ts";
import { ZipFile } from "./zip.ts";

/** An open npz file. Headers are in memory, arrays are not, but for compressed ones once they are read. */
export class NpzFile implements TensorFile {
  /** What errors call it. */
  readonly name: string;
  /** All arrays by name, without `.npy`. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly #zip: ZipFile;
  readonly #headers: ReadonlyMap<string, Header>;
  readonly #open = new Map<string, Promise<Source>>();

  private constructor(zip: ZipFile, headers: ReadonlyMap<string, Header>) {
    this.name = zip.source.name;
    this.#zip = zip;
    this.#headers = headers;
    this.tensors = new Map(
      headers.entries().map(([name, { info }]) => [name, info]),
    );
  }

  /**
   * Reads and checks the header of every array.
   * @throws {SyntaxError} If it is no npz file, or a header is not as NumPy writes it.
   * @throws {TypeError} If an array is not of little-endian numbers.
   * @throws {RangeError} If an array does not fit its entry, or entries do not fit the file.
   */
  static async open(source: Source): Promise<NpzFile> {
    const zip = await ZipFile.open(source);
    const headers = new Map<string, Header>();
    for (const { name, byteLength } of zip.entries.values()) {
      if (!name.endsWith(".npy")) {
        throw new SyntaxError(
          `Cannot read "${source.name}": expected arrays that end in .npy: got ${
            JSON.stringify(name.slice(0, 80))
          }: write it with numpy.savez`,
        );
      }
      const array = name.slice(0, -".npy".length);
      const bytes = await zip.head(name, MAX_HEADER_BYTES);
      headers.set(array, parseHeader(source.name, array, bytes, byteLength));
    }
    return new NpzFile(zip, headers);
  }

  /**
   * What the header says of one array.
   * @throws {RangeError} If there is none of this name: lists the nearest.
   */
  info(name: string): StoredTensor {
    return this.#header(name).info;
  }

  /** The bytes [start, end) of an array; see `TensorFile.read`. */
  async read(
    name: string,
    start: number,
    end: number,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { info, dataStart } = this.#header(name);
    const title = `${this.name}" (array "${name})`;
    checkRange(title, storedBytes(info.dtype, info.shape), start, end);
    const opened = this.#open.get(name) ?? this.#zip.open(`${name}.npy`);
    this.#open.set(name, opened);
    return await (await opened).read(dataStart + start, dataStart + end);
  }

  #header(name: string): Header {
    const header = this.#headers.get(name);
    if (header) return header;
    throw missingTensor(this.name, name, this.#headers.keys());
  }
}

/** What stands in front of an array. */
interface Header {
  readonly info: StoredTensor;
  /** First byte of the values, from the start of the `.npy`. */
  readonly dataStart: number;
}

/** Those of arrays of numbers have 128. */
const MAX_HEADER_BYTES = 2 ** 12;
const MAGIC = "\x93NUMPY";
const FORM =
  /^\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(((?:\d{1,16}, ?)*(?:\d{1,16})?)\), ?\} *\n$/;

const DTYPES: Readonly<Record<string, StoredDtype>> = {
  "<f8": "F64",
  "<f4": "F32",
  "<f2": "F16",
  "<i8": "I64",
  "<i4": "I32",
  "|i1": "I8",
  "|u1": "U8",
  "|b1": "BOOL",
};

function parseHeader(
  file: string,
  name: string,
  bytes: Uint8Array,
  byteLength: number,
): Header {
  const subject = `Cannot read "${file}": array ${
    JSON.stringify(name.slice(0, 80))
  }`;
  const text = String.fromCharCode(...bytes);
  const isWide = text.charCodeAt(6) > 1;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const start = isWide ? 12 : 10;
  const isNpy = text.startsWith(MAGIC) && bytes.length >= start;
  const dataStart = !isNpy
    ? NaN
    : start + (isWide ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = text.slice(start, dataStart);
  const [, descr = "", order, sizes = ""] = FORM.exec(header) ?? [];
  if (!(dataStart <= bytes.length) || order === undefined) {
    throw new SyntaxError(
      `${subject}: expected a .npy header of one dtype: got ${
        isNpy ? JSON.stringify(header.trim().slice(0, 80)) : "something else"
      }: save arrays of numbers with numpy.savez`,
    );
  }
  const dtype = Object.hasOwn(DTYPES, descr) ? DTYPES[descr] : undefined;
  if (!dtype) {
    throw new TypeError(
      `${subject}: expected little-endian numbers: got dtype ${
        JSON.stringify(descr)
      }${
        descr.includes("O") ? ", which are objects and would run code" : ""
      }: save it as float32`,
    );
  }
  const shape = sizes.split(",").filter((size) => size.trim() !== "")
    .map(Number);
  const n = storedBytes(dtype, shape);
  const isTransposed = order === "True" && shape.length > 1;
  if (dataStart + n !== byteLength || (isTransposed && shape.length > 2)) {
    throw new RangeError(
      `${subject}: expected ${byteLength - dataStart} bytes${
        isTransposed && shape.length > 2 ? " in C order" : ""
      }: got shape [${shape}] of ${dtype}: the file is damaged: fetch it again`,
    );
  }
  return {
    info: { name, dtype, shape, ...(isTransposed && { isTransposed }) },
    dataStart,
  };
}
