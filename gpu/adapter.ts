/** Limits that kernels and tensors depend on. */
export type LimitName =
  | "maxBufferSize"
  | "maxStorageBufferBindingSize"
  | "maxStorageBuffersPerShaderStage"
  | "maxComputeInvocationsPerWorkgroup"
  | "maxComputeWorkgroupSizeX"
  | "maxComputeWorkgroupSizeY"
  | "maxComputeWorkgroupSizeZ"
  | "maxComputeWorkgroupStorageSize"
  | "maxComputeWorkgroupsPerDimension";

/** The adapter's full values of these are requested. */
export const LIMITS: readonly LimitName[] = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupStorageSize",
  "maxComputeWorkgroupsPerDimension",
];

/** The name that a person knows an adapter by. */
export function adapterName(adapter: GPUAdapter): string {
  const { description, device, vendor } = adapter.info;
  return description || device || vendor || "unnamed adapter";
}

/** The adapters that WebGPU offers, without repeats, fastest kind first. */
export async function listAdapters(): Promise<GPUAdapter[]> {
  const requests: GPURequestAdapterOptions[] = [
    { powerPreference: "high-performance" },
    { powerPreference: "low-power" },
    { forceFallbackAdapter: true },
  ];
  const adapters: GPUAdapter[] = [];
  for (const request of globalThis.navigator?.gpu ? requests : []) {
    const adapter = await navigator.gpu.requestAdapter(request);
    if (
      adapter &&
      !adapters.some((known) => adapterName(known) === adapterName(adapter))
    ) {
      adapters.push(adapter);
    }
  }
  return adapters;
}

/**
 * The adapter that `--gpu` means: an index or a part of a name; the first when absent.
 * @throws {Error} If there is no adapter; says what to install.
 * @throws {RangeError} If `wanted` names none; lists those there are.
 */
export async function chooseAdapter(
  wanted: string | undefined,
): Promise<GPUAdapter> {
  const adapters = await listAdapters();
  if (adapters.length === 0) {
    throw new Error(
      "Cannot open a GPU: WebGPU found no adapter: install a Vulkan driver (on Debian and Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1)",
    );
  }
  const isIndex = wanted !== undefined && /^\d+$/.test(wanted);
  const chosen = wanted === undefined
    ? adapters[0]
    : (isIndex ? adapters[Number(wanted)] : undefined) ??
      adapters.find((a) =>
        adapterName(a).toLowerCase().includes(wanted.toLowerCase())
      );
  if (!chosen) {
    const names = adapters.map((a, i) => `${i} "${adapterName(a)}"`).join(", ");
    throw new RangeError(
      `Cannot open GPU "${wanted}": expected an index or a part of a name: there is ${names}`,
    );
  }
  return chosen;
}
