/**
 * The GPU that tests run on.
 * @module
 */
import { Gpu, type GpuOptions } from "../gpu/mod.ts";

let shared: Promise<Gpu> | undefined;

/**
 * Opens a GPU. Without options it is one for all tests of the file, since opening
 * takes 100 ms, and belongs to nobody; with options it is a fresh one that the
 * caller disposes of: for tests that break it or need limits of its own.
 */
export function testGpu(options?: GpuOptions): Promise<Gpu> {
  if (options) return Gpu.open(options);
  return shared ??= Gpu.open();
}
