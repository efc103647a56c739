import type { Launch } from "./kernel.ts";

/** A kernel's pipeline, and the layout that its bind groups must have. */
export interface Compiled {
  /** The pipeline. */
  readonly pipeline: GPUComputePipeline;
  /** Its only bind group's layout. */
  readonly layout: GPUBindGroupLayout;
}

/** The compiled kernels of one device. */
export class Pipelines {
  readonly #device: GPUDevice;
  /** By source, and then by the values of `override` constants: one key of both would copy the source at every launch. */
  readonly #known = new Map<string, Map<string, Compiled>>();

  /** None yet; they are compiled on first use and kept. */
  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** The pipeline of a launch; `watch` gets the errors of compiling it, if it is new. */
  of(
    launch: Launch,
    watch: (errors: Promise<GPUError | null>) => void,
  ): Compiled {
    const variants = this.#known.get(launch.source) ?? new Map();
    this.#known.set(launch.source, variants);
    const constants = Object.entries(launch.constants).join();
    const known = variants.get(constants);
    if (known) return known;
    this.#device.pushErrorScope("validation");
    const compiled = compile(this.#device, launch);
    watch(this.#device.popErrorScope());
    variants.set(constants, compiled);
    return compiled;
  }
}

/** Compiles a launch's kernel; errors go to the device's error scope. */
function compile(device: GPUDevice, launch: Launch): Compiled {
  const buffer = (
    binding: number,
    type: GPUBufferBindingType,
  ): GPUBindGroupLayoutEntry => ({
    binding,
    visibility: GPUShaderStage.COMPUTE,
    buffer: { type },
  });
  const entries = launch.access.map((access, i) =>
    buffer(i, access === "read" ? "read-only-storage" : "storage")
  );
  if (launch.uniforms) entries.push(buffer(entries.length, "uniform"));
  const layout = device.createBindGroupLayout({
    label: launch.name,
    entries,
  });
  const pipeline = device.createComputePipeline({
    label: launch.name,
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: {
      module: device.createShaderModule({
        label: launch.name,
        code: launch.source,
      }),
      constants: launch.constants,
    },
  });
  return { pipeline, layout };
}
