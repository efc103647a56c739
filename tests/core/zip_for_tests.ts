/**
 * Zip files made by hand, faults and all.
 * @module
 */
import { deflateSync } from "fflate";
import { crc32 } from "../../core/gunzip.ts";

/** A file to pack; fields that are given replace what its bytes would give. */
export interface Packed {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly deflate?: boolean;
  readonly crc?: number;
  readonly byteLength?: number;
  readonly storedBytes?: number;
  readonly headerStart?: number;
  readonly method?: number;
  readonly flags?: number;
}

/** A text as bytes, one of each character. */
export function latin1(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

/** Some runs of bytes, one behind the other. */
export function joined(
  ...parts: readonly ArrayLike<number>[]
): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => Array.from(part)));
}

function u16(...values: number[]): number[] {
  return values.flatMap((value) => [value & 0xff, (value >>> 8) & 0xff]);
}

function u32(...values: number[]): number[] {
  return values.flatMap((value) => u16(value & 0xffff, value >>> 16));
}

function u64(value: number): number[] {
  return u32(value >>> 0, Math.floor(value / 2 ** 32));
}

/** A zip file. With `wide`, sizes and offsets stand in the fields of zip64. */
export function zip(
  files: readonly Packed[],
  options: { wide?: boolean; nEntries?: number; comment?: string } = {},
): Uint8Array<ArrayBuffer> {
  const { wide = false, nEntries = files.length, comment = "" } = options;
  const parts: number[][] = [];
  const entries: number[][] = [];
  let at = 0;
  for (const file of files) {
    const data = file.deflate ? deflateSync(file.bytes) : file.bytes;
    const method = file.method ?? (file.deflate ? 8 : 0);
    const name = Array.from(latin1(file.name));
    const crc = file.crc ?? crc32(file.bytes);
    const stored = file.storedBytes ?? data.length;
    const byteLength = file.byteLength ?? file.bytes.length;
    const start = file.headerStart ?? at;
    const flags = file.flags ?? 0;
    const common = [...u16(flags, method, 0, 0), ...u32(crc)];
    const local = [
      ...u32(0x04034b50),
      ...u16(20),
      ...common,
      ...u32(stored, byteLength),
      ...u16(name.length, 0),
      ...name,
      ...data,
    ];
    const extra = wide
      ? [...u16(1, 24), ...u64(byteLength), ...u64(stored), ...u64(start)]
      : [];
    const none = 0xffffffff;
    entries.push([
      ...u32(0x02014b50),
      ...u16(20, 20),
      ...common,
      ...(wide ? u32(none, none) : u32(stored, byteLength)),
      ...u16(name.length, extra.length, 0, 0, 0),
      ...u32(0, wide ? none : start),
      ...name,
      ...extra,
    ]);
    parts.push(local);
    at += local.length;
  }
  const directory = entries.flat();
  const end64 = at + directory.length;
  const wideEnd = [
    ...u32(0x06064b50),
    ...u64(44),
    ...u16(45, 45),
    ...u32(0, 0),
    ...u64(nEntries),
    ...u64(nEntries),
    ...u64(directory.length),
    ...u64(at),
    ...u32(0x07064b50, 0),
    ...u64(end64),
    ...u32(1),
  ];
  const small = [nEntries, nEntries, directory.length, at] as const;
  return joined(
    parts.flat(),
    directory,
    wide ? wideEnd : [],
    u32(0x06054b50),
    u16(0, 0),
    wide ? u16(0xffff, 0xffff) : u16(small[0], small[1]),
    wide ? u32(0xffffffff, 0xffffffff) : u32(small[2], small[3]),
    u16(comment.length),
    latin1(comment),
  );
}
