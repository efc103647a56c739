/**
 * How kernel tests draw their inputs and run one launch.
 * @module
 */
import type { BindingSpec, Dtype, Gpu, Kernel, Tensor } from "../../gpu/mod.ts";
import { poison, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";

/** A tensor in host memory. */
export interface HostTensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly values: ArrayBufferView<ArrayBuffer>;
}

/** An f32 tensor. */
export function floats(
  shape: readonly number[],
  values: Float32Array<ArrayBuffer>,
): HostTensor {
  return { dtype: "f32", shape, values };
}

/** A u32 tensor. */
export function words(
  shape: readonly number[],
  values: ArrayLike<number>,
): HostTensor {
  return { dtype: "u32", shape, values: Uint32Array.from(values) };
}

/** An f32 tensor of NaN: an output of which every element must be written. */
export function poisoned(shape: readonly number[]): HostTensor {
  return floats(shape, poison(shape.reduce((n, size) => n * size, 1)));
}

/** Fresh normal numbers with a standard deviation, 1 when absent; the next call gives others. */
export type Draw = (n: number, scale?: number) => Float32Array<ArrayBuffer>;

/**
 * Registers a test with other random inputs in every run. A failure names the
 * seed; the environment variable TEST_SEED repeats it.
 */
export function seededTest(
  name: string,
  body: (draw: Draw) => Promise<void>,
): void {
  Deno.test(name, async () => {
    const fixed = Deno.env.get("TEST_SEED");
    const seed = fixed === undefined
      ? crypto.getRandomValues(new Uint32Array(1))[0]!
      : Number(fixed);
    let nDrawn = 0;
    try {
      await body((n, scale) => randomNormal(n, seed + nDrawn++, scale));
    } catch (cause) {
      throw new Error(`with TEST_SEED=${seed}`, { cause });
    }
  });
}

/** Uploads tensors by name; they belong to the caller's stack. */
export function uploadAll<Name extends PropertyKey>(
  gpu: Gpu,
  owned: DisposableStack,
  tensors: { readonly [name in Name]: HostTensor },
): { readonly [name in Name]: Tensor } {
  const uploaded = Object.entries<HostTensor>(tensors).map(
    ([name, { dtype, shape, values }]) =>
      [name, owned.use(gpu.upload(name, dtype, shape, values))] as const,
  );
  return Object.fromEntries(uploaded) as { [name in Name]: Tensor };
}

/** Launches a kernel once and reads back its f32 tensors that it may write. */
export async function runKernel<
  B extends Readonly<Record<string, BindingSpec>>,
  U extends Readonly<Record<string, "u32" | "i32" | "f32">>,
  O extends string,
>(
  kernel: Kernel<B, U, O>,
  tensors: { readonly [name in keyof B]: HostTensor },
  values: Parameters<Kernel<B, U, O>["run"]>[2] = {},
): Promise<Record<string, Float32Array>> {
  const gpu = await testGpu();
  using owned = new DisposableStack();
  const uploaded = uploadAll<keyof B>(gpu, owned, tensors);
  gpu.record(kernel.name, (rec) => kernel.run(rec, uploaded, values));
  const written = Object.entries(kernel.spec.bindings)
    .filter(([, { access }]) => access === "read_write")
    .map(async ([name]) => [name, await gpu.read(uploaded[name]!)] as const);
  return Object.fromEntries(await Promise.all(written));
}
