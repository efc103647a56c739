/**
 * TensorBoard event files, as bytes: records in TFRecord framing that hold
 * `Event` protobufs. Sources: TensorFlow's `record_writer.h`, `event.proto`,
 * `summary.proto` and `histogram.proto`.
 * @module
 */

/** A histogram: how many values lie at or below each limit and above the one before. */
export interface Histogram {
  /** Smallest value. */
  readonly min: number;
  /** Largest value. */
  readonly max: number;
  /** Number of values. */
  readonly count: number;
  /** Their sum. */
  readonly sum: number;
  /** Sum of their squares. */
  readonly sumOfSquares: number;
  /** Upper ends of the buckets, rising; the last is at least max. */
  readonly limits: readonly number[];
  /** Values in each bucket. */
  readonly counts: readonly number[];
}

/** What an event says. */
export type EventContent =
  /** First event of a file. */
  | { readonly kind: "version" }
  /** A run begins or goes on: what was logged before for this step and later counts no more. */
  | { readonly kind: "start" }
  | {
    readonly kind: "scalars";
    /** Values by tag. */
    readonly scalars: Readonly<Record<string, number>>;
  }
  | {
    readonly kind: "histogram";
    readonly tag: string;
    readonly histogram: Histogram;
  };

/** Something that happened at a step. */
export interface TensorBoardEvent {
  /** Seconds since 1970. */
  readonly wallTime: number;
  /** Step of the run. */
  readonly step: number;
  /** What is logged. */
  readonly content: EventContent;
}

/** The version from which on TensorBoard heeds the start of a session. */
const FILE_VERSION = "brain.Event:2";
/** `SessionLog.START`. */
const SESSION_START = 1;

/** Bytes of an event, framed as a record, ready to be appended to a file. */
export function eventRecord(
  event: TensorBoardEvent,
): Uint8Array<ArrayBuffer> {
  return record(encodeEvent(event));
}

/** A histogram of values with buckets of equal width; undefined when there is no finite value. */
export function histogramOf(
  values: Iterable<number>,
  bins: number,
): Histogram | undefined {
  const finite = [...values].filter(Number.isFinite);
  if (finite.length === 0) return undefined;
  let [min, max, sum, sumOfSquares] = [Infinity, -Infinity, 0, 0];
  for (const value of finite) {
    min = Math.min(min, value);
    max = Math.max(max, value);
    sum += value;
    sumOfSquares += value * value;
  }
  const width = (max - min) / bins || 1;
  const counts = new Array<number>(bins).fill(0);
  for (const value of finite) {
    const bin = Math.ceil((value - min) / width) - 1;
    counts[Math.min(bins - 1, Math.max(0, bin))]! += 1;
  }
  const limits = counts.map((_, bin) => min + (bin + 1) * width);
  limits[bins - 1] = Math.max(limits[bins - 1]!, max);
  return { min, max, count: finite.length, sum, sumOfSquares, limits, counts };
}

/** CRC-32C (Castagnoli, reflected polynomial 0x82f63b78) of bytes, as an unsigned 32-bit number. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

const TABLE: Uint32Array = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) {
    crc = crc & 1 ? 0x82f63b78 ^ (crc >>> 1) : crc >>> 1;
  }
  return crc;
});

/** The checksum as files hold it: a sum over bytes that contain sums would be weak. */
function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return ((crc >>> 15 | crc << 17) + 0xa282ead8) >>> 0;
}

/** Length (u64), its checksum (u32), the data, its checksum (u32); little-endian. */
function record(data: Uint8Array): Uint8Array<ArrayBuffer> {
  const framed = new Uint8Array(8 + 4 + data.length + 4);
  const view = new DataView(framed.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc(framed.subarray(0, 8)), true);
  framed.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc(data), true);
  return framed;
}

function encodeEvent(
  { wallTime, step, content }: TensorBoardEvent,
): Uint8Array {
  return message([
    double(1, wallTime),
    varint(2, step),
    encodeContent(content),
  ]);
}

function encodeContent(content: EventContent): Uint8Array {
  switch (content.kind) {
    case "version":
      return text(3, FILE_VERSION);
    case "start":
      return nested(7, [varint(1, SESSION_START)]);
    case "scalars":
      return nested(
        5,
        Object.entries(content.scalars).map(([tag, value]) =>
          nested(1, [text(1, tag), float(2, value)])
        ),
      );
    case "histogram":
      return nested(5, [
        nested(1, [
          text(1, content.tag),
          nested(5, encodeHistogram(content.histogram)),
        ]),
      ]);
  }
}

function encodeHistogram(histogram: Histogram): Uint8Array[] {
  const { min, max, count, sum, sumOfSquares, limits, counts } = histogram;
  return [
    double(1, min),
    double(2, max),
    double(3, count),
    double(4, sum),
    double(5, sumOfSquares),
    doubles(6, limits),
    doubles(7, counts),
  ];
}

// Fields of protobuf messages: a key, which is number · 8 + wire type, then the value.

function key(field: number, wireType: 0 | 1 | 2 | 5): number[] {
  return varintBytes(field * 8 + wireType);
}

function varint(field: number, value: number): Uint8Array {
  return Uint8Array.from([...key(field, 0), ...varintBytes(value)]);
}

/** Seven bits a byte, the lowest first; a set top bit says that more follow. */
function varintBytes(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) {
    bytes.push(rest % 128 + 128);
  }
  bytes.push(rest);
  return bytes;
}

function float(field: number, value: number): Uint8Array {
  return Uint8Array.from([...key(field, 5), ...littleEndian([value], 4)]);
}

function double(field: number, value: number): Uint8Array {
  return Uint8Array.from([...key(field, 1), ...littleEndian([value], 8)]);
}

function doubles(field: number, values: readonly number[]): Uint8Array {
  return lengthPrefixed(field, littleEndian(values, 8));
}

function littleEndian(values: readonly number[], size: 4 | 8): Uint8Array {
  const view = new DataView(new ArrayBuffer(size * values.length));
  for (const [i, value] of values.entries()) {
    if (size === 4) view.setFloat32(4 * i, value, true);
    else view.setFloat64(8 * i, value, true);
  }
  return new Uint8Array(view.buffer);
}

function text(field: number, value: string): Uint8Array {
  return lengthPrefixed(field, new TextEncoder().encode(value));
}

function nested(field: number, fields: readonly Uint8Array[]): Uint8Array {
  return lengthPrefixed(field, message(fields));
}

function lengthPrefixed(field: number, bytes: Uint8Array): Uint8Array {
  return message([
    Uint8Array.from([...key(field, 2), ...varintBytes(bytes.length)]),
    bytes,
  ]);
}

/** Fields, one after another. */
function message(fields: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(fields.reduce((n, { length }) => n + length, 0));
  let at = 0;
  for (const field of fields) {
    bytes.set(field, at);
    at += field.length;
  }
  return bytes;
}
