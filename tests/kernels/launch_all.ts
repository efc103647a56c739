/**
 * A few launches of a kernel in one recording, with integers to check as well as floats.
 * @module
 */
import type { BindingSpec, Kernel } from "../../gpu/mod.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { type HostTensor, uploadAll } from "./run_kernel.ts";

/** What a tensor holds, whichever type it has. */
export interface Written {
  readonly ints: Uint32Array<ArrayBuffer>;
  readonly floats: Float32Array<ArrayBuffer>;
}

/**
 * Launches a kernel a few times in one recording, with tensors that all launches share and some of their own;
 * reads back those that are shared and may be written.
 */
export async function launchAll<
  B extends Readonly<Record<string, BindingSpec>>,
  U extends Readonly<Record<string, "u32" | "i32" | "f32">>,
  O extends string,
  Shared extends Extract<keyof B, string>,
>(
  kernel: Kernel<B, U, O>,
  shared: { readonly [name in Shared]: HostTensor },
  launches: readonly {
    readonly tensors?: {
      readonly [name in Exclude<keyof B, Shared>]: HostTensor;
    };
    readonly values?: Parameters<Kernel<B, U, O>["run"]>[2];
  }[],
): Promise<{ readonly [name in Shared]: Written }> {
  const gpu = await testGpu();
  using owned = new DisposableStack();
  const common = uploadAll<Shared>(gpu, owned, shared);
  const all = launches.map(({ tensors, values }) => ({
    tensors: {
      ...common,
      ...(tensors && uploadAll<Exclude<keyof B, Shared>>(gpu, owned, tensors)),
    },
    values,
  }));
  gpu.record(kernel.name, (rec) => {
    for (const { tensors, values } of all) {
      kernel.run(rec, tensors as Parameters<typeof kernel.run>[1], values);
    }
  });
  const written = Object.keys(shared)
    .filter((name) => kernel.spec.bindings[name]!.access === "read_write")
    .map(async (name) => {
      const { buffer } = await gpu.readBytes(common[name as Shared]);
      const value = {
        ints: new Uint32Array(buffer),
        floats: new Float32Array(buffer),
      };
      return [name, value] as const;
    });
  return Object.fromEntries(await Promise.all(written)) as {
    readonly [name in Shared]: Written;
  };
}
