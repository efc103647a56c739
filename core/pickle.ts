/**
 * A reader of the part of Python's pickle format that checkpoints of weights are made of. A pickle is a program that
 * builds objects; this one runs a fixed set of steps on a stack, calls nothing but the functions that it is given by
 * name, and refuses every other name and step. Each step takes at least a byte of the file and adds at most one value,
 * so memory is bounded by the file; values may contain themselves, so nothing here walks through them.
 * Source: CPython, `Lib/pickletools.py`.
 * @module
 */
import { brief, FIX, PickleReader } from "./pickle_reader.ts";

/** A name that a pickle may use. Calling one without `call` is refused. */
export interface PickleGlobal {
  /** As the pickle has it: module and name, with a space between. */
  readonly name: string;
  /** What it makes of its arguments. */
  readonly call?: (args: readonly unknown[]) => unknown;
}

/** What a pickle may use. */
export interface PickleNames {
  /**
   * The name, or undefined to refuse it.
   * @param name Module and name, with a space between.
   */
  find(name: string): PickleGlobal | undefined;
  /** What an id of something outside of the pickle stands for. */
  persistent(id: unknown): unknown;
}

/** Those of weights have a few kilobytes; one byte can become a dict, of 200 bytes in memory. */
const MAX_BYTES = 2 ** 20;
/**
 * The value of a pickle: None as null, int as number (bigint beyond 2^53), bytes as Uint8Array, list as an array,
 * tuple as a frozen array, dict as a Map.
 * @param file What errors call it.
 * @throws {SyntaxError} If it is cut off, has a step that is not known, or bytes behind its end.
 * @throws {TypeError} If it names something that is not known, or its steps do not fit each other.
 * @throws {RangeError} If it is longer than 1 MiB.
 */
export function readPickle(
  file: string,
  bytes: Uint8Array,
  names: PickleNames,
): unknown {
  if (bytes.length > MAX_BYTES) {
    throw new RangeError(
      `Cannot read "${file}": expected a pickle of at most ${MAX_BYTES} bytes: got ${bytes.length}: ${FIX}`,
    );
  }
  return new Machine(file, bytes, names).run();
}

/** Where the items of the next list, tuple or dict begin. */
const MARK = Symbol("mark");

class Machine {
  readonly #file: string;
  readonly #reader: PickleReader;
  readonly #names: PickleNames;
  readonly #stack: unknown[] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(file: string, bytes: Uint8Array, names: PickleNames) {
    this.#file = file;
    this.#reader = new PickleReader(file, bytes);
    this.#names = names;
  }

  run(): unknown {
    while (true) {
      const step = String.fromCharCode(this.#reader.u8());
      if (step === ".") break;
      this.#take(step);
    }
    const [value, ...rest] = this.#stack;
    if (value === undefined || value === MARK || rest.length > 0) {
      throw this.#misfit("one value at its end");
    }
    const { nLeft } = this.#reader;
    if (nLeft > 0) throw this.#reader.broken(`${nLeft} bytes behind it`);
    return value;
  }

  /** One step. Opcodes are the letters of the format. */
  #take(step: string): void {
    const constant = this.#reader.constant(step);
    if (constant !== undefined) return this.#push(constant);
    const stack = this.#stack;
    switch (step) {
      case "\x80": // PROTO
        if (this.#reader.u8() <= 5) return;
        throw this.#reader.broken("a protocol above 5");
      case "\x95": // FRAME
        this.#reader.skip(8);
        return;
      case "(":
        stack.push(MARK);
        return;
      case "0": // POP
        if (stack.pop() !== undefined) return;
        throw this.#misfit("a value to drop");
      case "1": // POP_MARK
        this.#popToMark();
        return;
      case "2": // DUP
        stack.push(this.#top());
        return;
      case "q": // BINPUT
        return this.#put(this.#reader.u8());
      case "r": // LONG_BINPUT
        return this.#put(this.#reader.u32());
      case "\x94": // MEMOIZE
        return this.#put(this.#memo.size);
      case "h": // BINGET
        return this.#get(this.#reader.u8());
      case "j": // LONG_BINGET
        return this.#get(this.#reader.u32());
      case "c": // GLOBAL
        return this.#push(
          this.#global(`${this.#reader.line()} ${this.#reader.line()}`),
        );
      case "\x93": { // STACK_GLOBAL
        const name = this.#pop();
        const module = this.#pop();
        if (typeof name !== "string" || typeof module !== "string") {
          throw this.#misfit("a module and a name");
        }
        return this.#push(this.#global(`${module} ${name}`));
      }
      case "Q": // BINPERSID
        return this.#push(this.#names.persistent(this.#pop()));
      case "R":
        return this.#reduce();
      case "b":
        return this.#build();
      default:
        this.#takeContainer(step);
    }
  }

  #takeContainer(step: string): void {
    switch (step) {
      case "]":
        return this.#push([]);
      case "}":
        return this.#push(new Map());
      case ")":
        return this.#push(Object.freeze([]));
      case "t":
        return this.#push(Object.freeze(this.#popToMark()));
      case "\x85":
      case "\x86":
      case "\x87": {
        const n = step.charCodeAt(0) - 0x84;
        const items = Array.from({ length: n }, () => this.#pop());
        return this.#push(Object.freeze(items.reverse()));
      }
      case "l": // LIST
        return this.#push(this.#popToMark());
      case "a":
        return this.#append([this.#pop()]);
      case "e": // APPENDS
        return this.#append(this.#popToMark());
      case "s": {
        const value = this.#pop();
        return this.#setItems([this.#pop(), value]);
      }
      case "u": // SETITEMS
        return this.#setItems(this.#popToMark());
      case "d": { // DICT
        const items = this.#popToMark();
        this.#push(new Map());
        return this.#setItems(items);
      }
      default: {
        const code = step.charCodeAt(0).toString(16).padStart(2, "0");
        throw this.#reader.broken(
          `the step 0x${code}, which weights do without`,
        );
      }
    }
  }

  #append(items: readonly unknown[]): void {
    const list = this.#top();
    if (!Array.isArray(list) || Object.isFrozen(list)) {
      throw this.#misfit("a list to append to");
    }
    for (const item of items) list.push(item);
  }

  #setItems(items: readonly unknown[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map) || items.length % 2 !== 0) {
      throw this.#misfit("a dict, and keys with values");
    }
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i];
      if (typeof key === "object" && key !== null && !Object.isFrozen(key)) {
        throw this.#misfit("a key that can be hashed");
      }
      dict.set(key, items[i + 1]);
    }
  }

  /** Calls a name on a tuple of arguments. */
  #reduce(): void {
    const args = this.#pop();
    const callee = this.#pop();
    const call = callee instanceof Name ? callee.global.call : undefined;
    if (!call || !Array.isArray(args) || !Object.isFrozen(args)) {
      throw this.#misfit("a name that can be called, and a tuple");
    }
    this.#push(call(args) ?? null);
  }

  /** Attributes are set on ordered dicts only, which carry versions in them; nobody reads those. */
  #build(): void {
    const state = this.#pop();
    if (!(this.#top() instanceof Map) || !(state instanceof Map)) {
      throw this.#misfit("an ordered dict to set attributes of");
    }
  }

  #global(name: string): Name {
    const global = this.#names.find(name);
    if (global) return new Name(global);
    throw new TypeError(
      `Cannot read "${this.#file}": expected a pickle of weights alone: got the name ${
        brief(name)
      }: nothing was run: load it with its own library and save only the weights`,
    );
  }

  #push(value: unknown): void {
    this.#stack.push(value);
  }

  #pop(): unknown {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #top(): unknown {
    const value = this.#stack.at(-1);
    if (value !== undefined && value !== MARK) return value;
    throw this.#misfit("a value");
  }

  #popToMark(): unknown[] {
    const mark = this.#stack.lastIndexOf(MARK);
    if (mark < 0) throw this.#misfit("a mark");
    const items = this.#stack.splice(mark);
    items.shift();
    return items;
  }

  #put(index: number): void {
    this.#memo.set(index, this.#top());
  }

  #get(index: number): void {
    if (!this.#memo.has(index)) throw this.#misfit(`a value ${index} before`);
    this.#push(this.#memo.get(index));
  }

  #misfit(expected: string): TypeError {
    return new TypeError(
      `Cannot read "${this.#file}": expected ${expected} before byte ${this.#reader.at} of its pickle: got something else: ${FIX}`,
    );
  }
}

/** A name on the stack: no value of a pickle can pass for one. */
class Name {
  readonly global: PickleGlobal;

  constructor(global: PickleGlobal) {
    this.global = global;
  }
}

/** The name that a value of a pickle is; undefined if it is another value. */
export function pickledName(value: unknown): string | undefined {
  return value instanceof Name ? value.global.name : undefined;
}
