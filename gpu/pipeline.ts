import type { Launch } from "./kernel.ts";

/** A kernel's pipeline, and the layout that its bind groups must have. */
export interface Compiled {
  /** The pipeline. */
  readonly pipeline: GPUComputePipeline;
  /** Its only bind group's layout. */
  readonly layout: GPUBindGroupLayout;
}

/** Compiles a launch's kernel; errors go to the device's error scope. */
export function compile(device: GPUDevice, launch: Launch): Compiled {
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
