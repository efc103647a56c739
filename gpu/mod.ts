/**
 * WebGPU as the kernels need it: one device, labelled tensors in row blocks,
 * kernels checked against their WGSL, one submit a step, reads that no loop waits for.
 * @module
 */
export { adapterName, listAdapters } from "./adapter.ts";
export { Gpu, GpuLostError, type GpuOptions } from "./device.ts";
export {
  BLOCK,
  bytesOf,
  bytesPerElement,
  bytesPerRow,
  type Dtype,
  elementCount,
  type ElementDtype,
  isQuantized,
  type QuantizedDtype,
} from "./dtype.ts";
export { Gate, GATE_WORDS, type GatedLaunch } from "./gate.ts";
export {
  type BindingSpec,
  defineKernel,
  grid,
  type Kernel,
  type KernelSpec,
} from "./kernel.ts";
export { type KernelTime, Profiler } from "./profile.ts";
export { ReadbackRing } from "./readback.ts";
export { Recorder } from "./record.ts";
export { type RowWindow, Tensor } from "./tensor.ts";
export { Tuning, type TuningMode, type TuningStore } from "./tuning.ts";
