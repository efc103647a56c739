/**
 * Seeded random numbers, so that every run can be repeated. Nothing here
 * is secret or secure.
 * @module
 */

/** The four 32-bit words of a generator, for checkpoints. */
export type RngState = readonly [number, number, number, number];

/**
 * xoshiro128**, with streams by name.
 * Source: Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021.
 */
export class Rng {
  /** What forks derive from: a fork must not depend on how much was drawn before it. */
  #origin: RngState;
  #words: Uint32Array;

  /**
   * Starts the stream of a seed.
   * @throws {RangeError} If the seed is not a whole number from 0 to 2⁵³ − 1.
   */
  constructor(seed: number) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new RangeError(
        `Cannot seed the random numbers: expected a whole number from 0 to 2^53 - 1: got ${seed}`,
      );
    }
    this.#origin = spread([seed >>> 0, Math.floor(seed / 2 ** 32)]);
    this.#words = Uint32Array.from(this.#origin);
  }

  /** The next 32 random bits. */
  #next(): number {
    const words = this.#words;
    const word1 = words[1]!;
    const bits = Math.imul(rotateLeft(Math.imul(word1, 5), 7), 9) >>> 0;
    words[2]! ^= words[0]!;
    words[3]! ^= word1;
    words[1]! ^= words[2]!;
    words[0]! ^= words[3]!;
    words[2]! ^= word1 << 9;
    words[3] = rotateLeft(words[3]!, 11);
    return bits;
  }

  /** Uniform in [0, 1), in steps of 2⁻⁵³. */
  uniform(): number {
    const high = this.#next() >>> 5;
    return (high * 2 ** 26 + (this.#next() >>> 6)) / 2 ** 53;
  }

  /**
   * A whole number in [0, n), each equally likely.
   * @throws {RangeError} If n is not a whole number from 1 to 2³².
   */
  below(n: number): number {
    if (!Number.isSafeInteger(n) || n < 1 || n > 2 ** 32) {
      throw new RangeError(
        `Cannot draw a whole number: expected an upper end from 1 to 2^32: got ${n}`,
      );
    }
    // The tail that would favour small remainders is drawn again.
    const fair = 2 ** 32 - (2 ** 32 % n);
    for (;;) {
      const bits = this.#next();
      if (bits < fair) return bits % n;
    }
  }

  /** Normal with mean 0 and variance 1 (Box and Muller); keeps nothing back, so `state` is all there is. */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Shuffles in place (Fisher and Yates) and returns the same array. */
  shuffle<A extends Shuffled>(items: A): A {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [items[i], items[j]] = [items[j], items[i]];
    }
    return items;
  }

  /**
   * A stream of its own for one purpose ("batches", "init"): the same for the
   * same seed and label, whatever was drawn from this one before.
   */
  fork(label: string): Rng {
    const codes = Array.from(label, (char) => char.codePointAt(0)!);
    const fork = new Rng(0);
    fork.#origin = spread([...this.#origin, ...codes, codes.length]);
    fork.#words = Uint32Array.from(fork.#origin);
    return fork;
  }

  /** Where the stream stands. Put into an Rng of the same seed and label, it continues there. */
  get state(): RngState {
    const [a, b, c, d] = this.#words;
    return [a!, b!, c!, d!];
  }

  /**
   * Moves the stream.
   * @throws {RangeError} If the words are not four unsigned 32-bit numbers, or all are 0.
   */
  set state(words: RngState) {
    const valid = words.length === 4 &&
      words.every((word) => Number.isInteger(word) && word === word >>> 0) &&
      words.some((word) => word !== 0);
    if (!valid) {
      throw new RangeError(
        `Cannot resume the random numbers: expected four 32-bit words, not all 0: got [${
          Array.from(words).join(", ")
        }]`,
      );
    }
    this.#words = Uint32Array.from(words);
  }
}

/** What can be shuffled: arrays, and typed arrays of numbers. */
export type Shuffled =
  | unknown[]
  | Float32Array
  | Float64Array
  | Int32Array
  | Uint32Array;

function rotateLeft(word: number, n: number): number {
  return (word << n) | (word >>> (32 - n));
}

/** Hashes words into four that are never all 0, by rounds of MurmurHash3's finalizer. */
function spread(words: readonly number[]): RngState {
  let hash = 0;
  const absorb = (word: number): number => {
    hash = (hash + 0x9e3779b9 + word) | 0;
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return hash = (hash ^ (hash >>> 16)) >>> 0;
  };
  for (const word of words) absorb(word);
  return [absorb(1), absorb(2), absorb(3), absorb(4) || 1];
}

/**
 * Mulberry32: uniform numbers in [0, 1) from a 32-bit seed. The storybook is
 * drawn with it, so that its documents stay the same, byte for byte; all else uses `Rng`.
 * Source: Tommy Ettinger, 2017.
 */
export function mulberry32(seed: number): () => number {
  let counter = seed >>> 0;
  return (): number => {
    counter = (counter + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(counter ^ (counter >>> 15), counter | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}
