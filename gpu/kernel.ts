import { describeShape, type Dtype } from "./dtype.ts";
import type { Recorder } from "./record.ts";
import type { Tensor } from "./tensor.ts";
import { parseWgsl } from "./wgsl.ts";

/** How a kernel uses one storage buffer. */
export interface BindingSpec {
  readonly access: "read" | "read_write";
  /** Element type, or the types the shader can take. */
  readonly dtype: Dtype | readonly Dtype[];
  /** Names or sizes of the dimensions; equal names must have equal sizes in one call. */
  readonly shape: readonly (string | number)[];
}

/** Types that a field of `struct Uniforms` can have; all are 4 bytes. */
export type UniformType = "u32" | "i32" | "f32";

type Bindings = Readonly<Record<string, BindingSpec>>;
type Uniforms = Readonly<Record<string, UniformType>>;
type DimName<B extends Bindings> = Extract<B[keyof B]["shape"][number], string>;
type Names<U, O extends string> = Extract<keyof U, string> | O;

/** A kernel's interface: one screen that says all a caller needs. */
export interface KernelSpec<
  B extends Bindings,
  U extends Uniforms,
  O extends string,
> {
  /** Basename of the `.wgsl` file; named in every error. */
  readonly name: string;
  /** The shader, whole. */
  readonly wgsl: string;
  /** Whole WGSL files that the shader calls, appended after it so that its line numbers stay true. */
  readonly helpers?: readonly string[];
  /** Storage buffers in the order of their `@binding` numbers. */
  readonly bindings: B;
  /** `override` constants: model dimensions, workgroup sizes. */
  readonly overrides?: readonly O[];
  /** Sizes of function-scope arrays, which WGSL lets no override set: appended as `const NAME = VALUEu;`. */
  readonly consts?: readonly O[];
  /** Fields of `struct Uniforms`, bound after the storage buffers. A field named like a dimension takes its size. */
  readonly uniforms?: U;
  /** Workgroups to launch, from the solved dimensions and the values of the call. */
  readonly workgroups: (
    dims: Readonly<Record<DimName<B> | Names<U, O>, number>>,
  ) => readonly [number, number, number];
}

/** A compiled-on-first-use compute shader with a typed call. */
export interface Kernel<
  B extends Bindings,
  U extends Uniforms,
  O extends string,
> {
  readonly name: string;
  /** The declaration, for the checks that compile every kernel. */
  readonly spec: KernelSpec<B, U, O>;
  /**
   * Records one launch.
   * @throws {RangeError} If a tensor's dtype, rank or size does not fit, naming kernel and binding.
   */
  run(
    rec: Recorder,
    tensors: { readonly [name in keyof B]: Tensor },
    values?: { readonly [name in Names<U, O>]?: number },
  ): void;
}

/** What a recorder needs to launch a kernel; the typed surface is {@link Kernel}. */
export interface Launch {
  /** The kernel's name. */
  readonly name: string;
  /** WGSL, whole. */
  readonly source: string;
  /** How each tensor is used. */
  readonly access: readonly ("read" | "read_write")[];
  /** In the order of the shader's bindings. */
  readonly tensors: readonly Tensor[];
  /** Values of the shader's `override` constants. */
  readonly constants: Readonly<Record<string, number>>;
  /** Bytes of `struct Uniforms`; undefined where the shader has none. */
  readonly uniforms: ArrayBuffer | undefined;
  /** Workgroups in each dimension. */
  readonly workgroups: readonly [number, number, number];
}

/** WebGPU's default limit of workgroups in one dimension. */
const MAX_WORKGROUPS = 65_535;

/**
 * Lays `n` workgroups out in two dimensions where one is too short. Shaders read
 * their index as `workgroup_id.y * num_workgroups.x + workgroup_id.x` and must
 * ignore indices ≥ n.
 */
export function grid(n: number): readonly [number, number, number] {
  if (n <= MAX_WORKGROUPS) return [n, 1, 1];
  const columns = Math.ceil(Math.sqrt(n));
  return [columns, Math.ceil(n / columns), 1];
}

/**
 * Declares a kernel and compares the declaration with its shader.
 * @throws {TypeError} If names, access, order or uniform fields differ from the WGSL.
 */
export function defineKernel<
  const B extends Bindings,
  const U extends Uniforms = Record<never, never>,
  const O extends string = never,
>(spec: KernelSpec<B, U, O>): Kernel<B, U, O> {
  checkAgainstWgsl(spec);
  const bindings = Object.entries(spec.bindings);
  const uniforms = Object.entries(spec.uniforms ?? {});
  const sources = new Map<string, string>();

  return {
    name: spec.name,
    spec,
    run(rec, tensors, values = {}) {
      const dims = solveDims(spec.name, bindings, tensors, values);
      const need = (name: string): number => {
        const value = dims[name];
        if (value === undefined || Number.isNaN(value)) {
          throw new TypeError(
            `Cannot run kernel "${spec.name}": no value for "${name}"`,
          );
        }
        return value;
      };
      const suffix = (spec.consts ?? []).map((name) =>
        `const ${name} = ${need(name)}u;`
      ).join("\n");
      let source = sources.get(suffix);
      if (source === undefined) {
        source = [spec.wgsl, ...(spec.helpers ?? []), suffix].join("\n");
        sources.set(suffix, source);
      }
      rec.launch({
        name: spec.name,
        source,
        access: bindings.map(([, binding]) => binding.access),
        tensors: bindings.map(([name]) => tensors[name]!),
        constants: Object.fromEntries(
          (spec.overrides ?? []).map((name) => [name, need(name)]),
        ),
        uniforms: uniforms.length === 0
          ? undefined
          : packUniforms(uniforms, need),
        workgroups: spec.workgroups(
          dims as Record<DimName<B> | Names<U, O>, number>,
        ),
      });
    },
  };
}

function packUniforms(
  fields: readonly [string, UniformType][],
  need: (name: string) => number,
): ArrayBuffer {
  const view = new DataView(new ArrayBuffer(Math.ceil(fields.length / 4) * 16));
  for (const [i, [name, type]] of fields.entries()) {
    const value = need(name);
    if (type === "f32") view.setFloat32(4 * i, value, true);
    else if (type === "i32") view.setInt32(4 * i, value, true);
    else view.setUint32(4 * i, value, true);
  }
  return view.buffer;
}

function solveDims(
  kernel: string,
  bindings: readonly [string, BindingSpec][],
  tensors: Readonly<Record<string, Tensor>>,
  values: Readonly<Record<string, number | undefined>>,
): Record<string, number> {
  const dims: Record<string, number> = {};
  const fixedBy: Record<string, string> = {};
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined) dims[name] = value;
  }
  for (const [name, binding] of bindings) {
    const tensor = tensors[name];
    if (!tensor) {
      throw new TypeError(
        `Cannot run kernel "${kernel}": no tensor for "${name}"`,
      );
    }
    const dtypes: readonly string[] = [binding.dtype].flat();
    const fits = dtypes.includes(tensor.dtype) &&
      tensor.shape.length === binding.shape.length &&
      binding.shape.every((dim, i) => {
        const size = tensor.shape[i]!;
        if (typeof dim === "number") return dim === size;
        if (fixedBy[dim] === undefined) {
          fixedBy[dim] = dims[dim] === undefined
            ? `binding "${name}"`
            : "the call";
          dims[dim] ??= size;
        }
        return dims[dim] === size;
      });
    if (!fits) {
      const want = binding.shape.map((dim) =>
        typeof dim === "number" || dims[dim] === undefined
          ? dim
          : `${dim}=${dims[dim]} (fixed by ${fixedBy[dim]})`
      );
      throw new RangeError(
        `Cannot run kernel "${kernel}": binding "${name}" must be ${
          dtypes.join(" or ")
        }[${want.join(", ")}]: got ${tensor}`,
      );
    }
  }
  return dims;
}

function checkAgainstWgsl<
  B extends Bindings,
  U extends Uniforms,
  O extends string,
>(
  spec: KernelSpec<B, U, O>,
): void {
  const declared = parseWgsl(spec.wgsl);
  const compare = (
    what: string,
    wgsl: readonly string[],
    typescript: readonly string[],
  ) => {
    if (wgsl.join() === typescript.join()) return;
    throw new TypeError(
      `Cannot define kernel "${spec.name}": ${spec.name}.wgsl declares ${what} [${
        wgsl.join(", ")
      }], TypeScript declares [${typescript.join(", ")}]`,
    );
  };
  compare(
    "bindings",
    declared.bindings.map(({ name, access }) => `${name}: ${access}`),
    Object.entries(spec.bindings).map(([name, { access }]) =>
      `${name}: ${access}`
    ),
  );
  compare(
    "uniforms",
    declared.uniforms.map(({ name, type }) => `${name}: ${type}`),
    Object.entries(spec.uniforms ?? {}).map(([name, type]) =>
      `${name}: ${type}`
    ),
  );
  compare(
    "overrides",
    [...declared.overrides].sort(),
    [...(spec.overrides ?? [])].sort(),
  );
}

/** `"rms_norm" on x: f32[3, 100], …`: how a launch is named in errors. */
export function describeLaunch(launch: Launch): string {
  const tensors = launch.tensors.map((t) =>
    `${t.label}: ${describeShape(t.dtype, t.shape)}`
  );
  return `"${launch.name}" on ${tensors.join(", ")}`;
}
