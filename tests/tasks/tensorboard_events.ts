/**
 * Reads TensorBoard's event files, by the formats' descriptions and by other means
 * than the code that writes them.
 * @module
 */
import { equal, ok } from "node:assert/strict";

/** A protobuf field: a number for varints and floats, bytes for the rest. */
type Field = readonly [number: number, value: number | Uint8Array];

/** An event, as far as ours go. */
export interface DecodedEvent {
  readonly wallTime: number;
  readonly step: number;
  readonly version?: string;
  readonly sessionStatus?: number;
  readonly scalars?: Readonly<Record<string, number>>;
  readonly histogram?: {
    readonly tag: string;
    /** min, max, num, sum, sum of squares. */
    readonly head: readonly number[];
    readonly limits: readonly number[];
    readonly counts: readonly number[];
  };
}

/** CRC-32C bit by bit, by polynomial division of the reflected message. */
export function slowCrc32c(bytes: Uint8Array): number {
  let rest = 0xffffffffn;
  for (const byte of bytes) {
    rest ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) {
      rest = rest & 1n ? (rest >> 1n) ^ 0x82f63b78n : rest >> 1n;
    }
  }
  return Number(rest ^ 0xffffffffn);
}

/** All events of a file; fails where a length or a checksum is wrong, or a record is cut off. */
export function decodeEvents(file: Uint8Array): DecodedEvent[] {
  const events: DecodedEvent[] = [];
  for (let at = 0; at < file.length;) {
    ok(at + 12 <= file.length, "a record's head is whole");
    const view = new DataView(file.buffer, file.byteOffset + at);
    const length = Number(view.getBigUint64(0, true));
    ok(at + 16 + length <= file.length, "a record is whole");
    const data = file.subarray(at + 12, at + 12 + length);
    checkMasked(view.getUint32(8, true), file.subarray(at, at + 8));
    checkMasked(view.getUint32(12 + length, true), data);
    events.push(decodeEvent(data));
    at += 16 + length;
  }
  return events;
}

/** Undoes the mask, and compares. */
function checkMasked(stored: number, bytes: Uint8Array): void {
  const turned = (BigInt(stored) - 0xa282ead8n) & 0xffffffffn;
  const crc = ((turned << 15n) | (turned >> 17n)) & 0xffffffffn;
  equal(Number(crc), slowCrc32c(bytes), "checksum");
}

function decodeEvent(data: Uint8Array): DecodedEvent {
  let event: DecodedEvent = { wallTime: 0, step: 0 };
  for (const [number, value] of fieldsOf(data)) {
    if (number === 1) event = { ...event, wallTime: Number(value) };
    else if (number === 2) event = { ...event, step: Number(value) };
    else if (number === 3) event = { ...event, version: textOf(value) };
    else if (number === 5) event = { ...event, ...decodeSummary(value) };
    else if (number === 7) {
      const [[, status] = []] = fieldsOf(bytesOf(value));
      event = { ...event, sessionStatus: Number(status) };
    } else throw new Error(`unknown field ${number} of an event`);
  }
  return event;
}

function decodeSummary(
  summary: Field[1],
): Pick<DecodedEvent, "scalars" | "histogram"> {
  const scalars: Record<string, number> = {};
  for (const [number, value] of fieldsOf(bytesOf(summary))) {
    equal(number, 1, "a summary has only values");
    const parts = new Map(fieldsOf(bytesOf(value)));
    const tag = textOf(parts.get(1)!);
    const histogram = parts.get(5);
    if (histogram !== undefined) {
      return { histogram: { tag, ...decodeHistogram(bytesOf(histogram)) } };
    }
    scalars[tag] = Number(parts.get(2));
  }
  return { scalars };
}

function decodeHistogram(
  data: Uint8Array,
): Omit<NonNullable<DecodedEvent["histogram"]>, "tag"> {
  const parts = new Map(fieldsOf(data));
  const packed = (bytes: Uint8Array): number[] =>
    Array.from({ length: bytes.length / 8 }, (_, i) => doubleAt(bytes, 8 * i));
  return {
    head: [1, 2, 3, 4, 5].map((number) => Number(parts.get(number))),
    limits: packed(bytesOf(parts.get(6)!)),
    counts: packed(bytesOf(parts.get(7)!)),
  };
}

function fieldsOf(data: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n;; shift += 7n) {
      const byte = data[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(value);
    }
  };
  while (at < data.length) {
    const key = varint();
    const [number, wireType] = [key >> 3, key & 7];
    if (wireType === 0) fields.push([number, varint()]);
    else if (wireType === 1) fields.push([number, doubleAt(data, at)]), at += 8;
    else if (wireType === 5) fields.push([number, floatAt(data, at)]), at += 4;
    else {
      equal(wireType, 2);
      const length = varint();
      fields.push([number, data.subarray(at, at += length)]);
    }
  }
  return fields;
}

function doubleAt(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset + at).getFloat64(0, true);
}

function floatAt(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset + at).getFloat32(0, true);
}

function bytesOf(value: Field[1]): Uint8Array {
  ok(value instanceof Uint8Array);
  return value;
}

function textOf(value: Field[1]): string {
  return new TextDecoder().decode(bytesOf(value));
}
