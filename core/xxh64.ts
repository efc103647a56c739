/**
 * XXH64 with seed 0, of which zstd frames have the lower half. Numbers of 64 bits are two of 32 here:
 * BigInt would be slower than what is checked.
 * Source: Yann Collet, "XXH64", xxHash specification 0.1.1.
 * @module
 */

const P1 = [0x9e3779b1, 0x85ebca87] as const; // [high, low]
const P2 = [0xc2b2ae3d, 0x27d4eb4f] as const;
const P3 = [0x165667b1, 0x9e3779f9] as const;
const P4 = [0x85ebca77, 0xc2b2ae63] as const;
const P5 = [0x27d4eb2f, 0x165667c5] as const;
const STRIPE = 32;

type Word = readonly [high: number, low: number];

/** The hash of bytes that come one after the other. */
export class Xxh64 {
  /** Four sums, high and low halves by turns. */
  readonly #lanes = new Uint32Array(8);
  readonly #rest = new Uint8Array(STRIPE);
  #nRest = 0;
  #length = 0;

  /** Of no bytes. */
  constructor() {
    const zero: Word = [0, 0];
    const lanes = [
      plus(P1, P2),
      P2,
      zero,
      plus([~P1[0], ~P1[1]], [0, 1]), // -P1
    ];
    this.#lanes.set(lanes.flat());
  }

  /** Takes more bytes. */
  update(bytes: Uint8Array): void {
    this.#length += bytes.length;
    let at = 0;
    if (this.#nRest > 0) {
      at = Math.min(STRIPE - this.#nRest, bytes.length);
      this.#rest.set(bytes.subarray(0, at), this.#nRest);
      this.#nRest += at;
      if (this.#nRest < STRIPE) return;
      this.#stripes(this.#rest, 0, STRIPE);
      this.#nRest = 0;
    }
    const end = bytes.length - (bytes.length - at) % STRIPE;
    this.#stripes(bytes, at, end);
    this.#rest.set(bytes.subarray(end));
    this.#nRest = bytes.length - end;
  }

  /** The lower 32 bits of the hash of all bytes so far. */
  low32(): number {
    let hash: Word;
    const lane = (i: number): Word => [
      this.#lanes[2 * i]!,
      this.#lanes[2 * i + 1]!,
    ];
    if (this.#length >= STRIPE) {
      hash = plus(
        plus(rotate(lane(0), 1), rotate(lane(1), 7)),
        plus(rotate(lane(2), 12), rotate(lane(3), 18)),
      );
      for (let i = 0; i < 4; i++) {
        const mixed = times(rotate(times(lane(i), P2), 31), P1);
        hash = plus(times(xor(hash, mixed), P1), P4);
      }
    } else hash = P5;
    hash = plus(hash, [Math.floor(this.#length / 2 ** 32), this.#length]);
    return finish(hash, this.#rest.subarray(0, this.#nRest));
  }

  /** Adds whole stripes of 32 bytes: each lane += word · P2, rotated by 31, times P1. */
  #stripes(bytes: Uint8Array, start: number, end: number): void {
    const lanes = this.#lanes;
    for (let at = start; at < end;) {
      for (let lane = 0; lane < 8; lane += 2, at += 8) {
        const low = wordAt(bytes, at);
        const high = wordAt(bytes, at + 4);
        // word · P2: of the product of the lower halves all 64 bits, of the others the lower 32.
        let sumLow = Math.imul(low, P2[1]) >>> 0;
        let sumHigh = highOf(low, P2[1]) + Math.imul(low, P2[0]) +
          Math.imul(high, P2[1]) + lanes[lane]!;
        sumLow += lanes[lane + 1]!;
        if (sumLow >= 2 ** 32) sumHigh++;
        // Rotated by 31.
        const turnedHigh = sumHigh << 31 | sumLow >>> 1;
        const turnedLow = sumLow << 31 | sumHigh >>> 1;
        lanes[lane] = highOf(turnedLow, P1[1]) + Math.imul(turnedLow, P1[0]) +
          Math.imul(turnedHigh, P1[1]);
        lanes[lane + 1] = Math.imul(turnedLow, P1[1]);
      }
    }
  }
}

/** Mixes the bytes that fill no stripe in, and all bits with each other. */
function finish(start: Word, rest: Uint8Array): number {
  let hash = start;
  let at = 0;
  for (; at + 8 <= rest.length; at += 8) {
    const word: Word = [wordAt(rest, at + 4), wordAt(rest, at)];
    const mixed = times(rotate(times(word, P2), 31), P1);
    hash = plus(times(rotate(xor(hash, mixed), 27), P1), P4);
  }
  if (at + 4 <= rest.length) {
    hash = xor(hash, times([0, wordAt(rest, at)], P1));
    hash = plus(times(rotate(hash, 23), P2), P3);
    at += 4;
  }
  for (; at < rest.length; at++) {
    hash = times(rotate(xor(hash, times([0, rest[at]!], P5)), 11), P1);
  }
  hash = times(xor(hash, [0, hash[0] >>> 1]), P2); // hash ^ hash >> 33
  hash = times(xor(hash, [hash[0] >>> 29, hash[0] << 3 | hash[1] >>> 29]), P3);
  return (hash[1] ^ hash[0]) >>> 0; // hash ^ hash >> 32
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! | bytes[at + 1]! << 8 | bytes[at + 2]! << 16 |
    bytes[at + 3]! << 24;
}

/** The upper 32 bits of a product of two numbers of 32 bits. */
function highOf(a: number, b: number): number {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  // Sums of at most 2³² - 1, so that >>> takes them as they are.
  const middle = Math.imul(a1, b0) + (Math.imul(a0, b0) >>> 16) >>> 0;
  const other = Math.imul(a0, b1) + (middle & 0xffff) >>> 0;
  return Math.imul(a1, b1) + (middle >>> 16) + (other >>> 16) >>> 0;
}

function times([aHigh, aLow]: Word, [bHigh, bLow]: Word): Word {
  const high = highOf(aLow, bLow) + Math.imul(aLow, bHigh) +
    Math.imul(aHigh, bLow);
  return [high >>> 0, Math.imul(aLow, bLow) >>> 0];
}

function plus([aHigh, aLow]: Word, [bHigh, bLow]: Word): Word {
  const low = (aLow >>> 0) + (bLow >>> 0);
  return [(aHigh + bHigh + (low >= 2 ** 32 ? 1 : 0)) >>> 0, low >>> 0];
}

function xor([aHigh, aLow]: Word, [bHigh, bLow]: Word): Word {
  return [(aHigh ^ bHigh) >>> 0, (aLow ^ bLow) >>> 0];
}

function rotate([high, low]: Word, by: number): Word {
  return [
    (high << by | low >>> 32 - by) >>> 0,
    (low << by | high >>> 32 - by) >>> 0,
  ];
}
