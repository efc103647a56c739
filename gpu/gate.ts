import type { Gpu } from "./device.ts";
import type { Tensor } from "./tensor.ts";

/** Words of a gated launch: its workgroups and the branch that it belongs to; or items of a workgroup, 0, 0 and the branch. */
export const GATE_WORDS = 4;

/** When a gated launch takes place. */
export interface GatedLaunch {
  /** The branch that it belongs to. */
  readonly branch: number;
  /**
   * Items that a workgroup works on, where their number is only known to the GPU: as many workgroups are launched, in
   * two dimensions if need be, as the items that the gate is opened for take. Absent, the launch's own workgroups are.
   */
  readonly itemsPerWorkgroup?: number;
}

/**
 * Launches that only take place if the GPU decides so: each belongs to a branch,
 * and a kernel (`open_gate`) turns the workgroups of all others into 0 before they
 * are reached. So a step can take another way without the host waiting for a number.
 */
export class Gate implements Disposable {
  /** u32 `[most, 4]`: workgroups in three dimensions and branch of each gated launch, in order. */
  readonly wanted: Tensor;
  /** u32 `[most, 4]`: the workgroups that take place; the fourth word is idle. */
  readonly allowed: Tensor;
  readonly #most: number;
  readonly #words: Uint32Array<ArrayBuffer>;
  #n = 0;
  #isChanged = false;

  /** Room for `most` gated launches in one recording. */
  constructor(gpu: Gpu, most: number) {
    this.#most = most;
    this.#words = new Uint32Array(most * GATE_WORDS);
    this.wanted = gpu.tensor("gate.wanted", "u32", [most, GATE_WORDS]);
    this.allowed = gpu.tensor("gate.allowed", "u32", [most, GATE_WORDS]);
  }

  /** Begins the launches of a recording anew; for the code that records a whole step. */
  reset(): void {
    this.#n = 0;
  }

  /**
   * Notes a launch; where its workgroups will be found. For {@link Recorder}.
   * @throws {RangeError} If there are more launches than room.
   */
  add(
    workgroups: readonly [number, number, number],
    { branch, itemsPerWorkgroup }: GatedLaunch,
  ): { readonly buffer: GPUBuffer; readonly offset: number } {
    if (this.#n === this.#most) {
      throw new RangeError(
        `Cannot record another gated launch: expected at most ${this.#most}`,
      );
    }
    const at = this.#n++ * GATE_WORDS;
    const words = itemsPerWorkgroup === undefined
      ? [...workgroups, branch]
      : [itemsPerWorkgroup, 0, 0, branch];
    for (const [i, word] of words.entries()) {
      this.#isChanged ||= this.#words[at + i] !== word;
      this.#words[at + i] = word;
    }
    const { buffer, offset = 0 } = this.allowed.binding;
    return { buffer, offset: offset + 4 * at };
  }

  /** Sends what was noted to the GPU; call it before the recording is submitted. */
  flush(): void {
    if (this.#isChanged) this.wanted.write(this.#words);
    this.#isChanged = false;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.wanted[Symbol.dispose]();
    this.allowed[Symbol.dispose]();
  }
}
