/**
 * Other libraries, loaded from a folder where npm has put them: the product must not
 * depend on them.
 * @module
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import type { MatvecProblem } from "./matvec_problem.ts";
import type { MatmulProblem, StepProblem } from "./problem.ts";
import type { Side, StepSide } from "./side.ts";

/** The packages, in the versions that the comparison was written for. */
export const PACKAGES = {
  "@jax-js/jax": "0.1.25",
  "@tensorflow/tfjs": "4.22.0",
  "@tensorflow/tfjs-backend-webgpu": "4.22.0",
} as const;

/** One of them. */
export type PackageName = keyof typeof PACKAGES;

/** How to install them. */
export const HOW_TO_INSTALL = `npm install --prefix DIR ${
  Object.entries(PACKAGES).map((pair) => pair.join("@")).join(" ")
}, then --rivals DIR`;

/** A library with a device of its own, which disposing of it destroys. */
export interface RivalSides extends Disposable {
  /** Its product. */
  product(problem: MatmulProblem): Promise<Side>;
  /** Its product of one row with a model's weights, in each way that it has. */
  matvec(problem: MatvecProblem): Promise<Side[]>;
  /** Its training step. */
  step(problem: StepProblem): StepSide;
}

/** A folder with a node_modules. */
export class Rivals {
  readonly #folder: string;

  /** @param folder Absolute path. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** The version of a package, undefined where it is not installed. */
  version(name: PackageName): string | undefined {
    try {
      const text = Deno.readTextFileSync(
        join(this.#folder, "node_modules", name, "package.json"),
      );
      return String(JSON.parse(text).version);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }

  /**
   * Loads a package. `T` is the part of it that is used.
   * @throws {Error} If it cannot be loaded.
   */
  load<T>(name: PackageName): T {
    // Node's own resolution, since Deno resolves imports by the deno.json of this repository.
    const require = createRequire(join(this.#folder, "package.json"));
    try {
      return require(name) as T;
    } catch (error) {
      throw new Error(
        `Cannot load ${name} from "${this.#folder}": ${error}: ${HOW_TO_INSTALL}`,
        { cause: error },
      );
    }
  }
}

/** Sees to it that a rival's device does what it is told: WebGPU drops work that fails, and says so in an event only. */
export class DeviceWatch {
  readonly #name: string;
  readonly #device: GPUDevice;
  #error: string | undefined;

  /**
   * Begins to listen.
   * @param adapter Name of the adapter that we run on.
   * @throws {Error} If the rival runs on another.
   */
  constructor(name: string, device: GPUDevice, adapter: string) {
    this.#name = name;
    this.#device = device;
    const { description } = device.adapterInfo;
    if (description !== "" && description !== adapter) {
      throw new Error(
        `Cannot compare with ${name}: expected GPU "${adapter}": got "${description}": leave --gpu out`,
      );
    }
    device.addEventListener("uncapturederror", (event) => {
      this.#error ??= (event as GPUUncapturedErrorEvent).error.message;
    });
  }

  /**
   * To be called after a wait.
   * @throws {Error} If the device has reported an error: its times are worth nothing then.
   */
  throwIfFailed(): void {
    if (this.#error === undefined) return;
    throw new Error(
      `Cannot compare with ${this.#name}: GPU error: ${this.#error}`,
    );
  }

  /** Destroys the device and its memory. */
  dispose(): void {
    this.#device.destroy();
  }
}
