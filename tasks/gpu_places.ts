/**
 * Several GPUs on one machine, each for a process of its own.
 *
 * WebGPU tells cards apart by name only, so that of two alike it shows one. The Vulkan
 * loader tells them apart by their place on the PCI bus, through the layer that comes
 * with Mesa and works for every vendor's driver.
 * @module
 */
import { existsSync } from "node:fs";
import { runInShell } from "./shell.ts";

/** How a process gets its GPU. */
export interface GpuPlace {
  /** As it is said to a person; "" for the one that a task takes by itself. */
  readonly name: string;
  /** Flags for the task. */
  readonly words: readonly string[];
  /** Variables for its process. */
  readonly env: Readonly<Record<string, string>>;
}

/** The help of flags that {@link gpuPlaces} reads. */
export const GPUS_HELP =
  "GPUs to spread the work over, each by index, a part of its name or, where cards are alike, its PCI address, such as 0,1 or 41:00.0,81:00.0";

/** What a machine says of its cards. */
export interface Machine {
  /** The class of a PCI device, such as "0x030000"; undefined where there is no device. */
  pciClass(address: string): Promise<string | undefined>;
  /** Whether there is a file. */
  exists(path: string): boolean;
}

const THIS_MACHINE: Machine = {
  // Deno itself reads nothing of /sys, unless it may do anything at all.
  async pciClass(address) {
    const file = `/sys/bus/pci/devices/${address}/class`;
    const { code, stdout } = await runInShell(["cat", file]);
    return code === 0 ? stdout.trim() : undefined;
  },
  exists: existsSync,
};

/** Mesa's layer, and where it is. */
const LAYER = "vulkan/implicit_layer.d/VkLayer_MESA_device_select.json";
const FOLDERS = ["/usr/share", "/usr/local/share", "/etc"];

/**
 * The places that `--gpus` names.
 * @param machine Whose cards; this one's when absent.
 * @throws {TypeError} If an item is empty.
 * @throws {Error} If a PCI address has no card, or Mesa's layer is missing.
 */
export async function gpuPlaces(
  typed: string,
  machine: Machine = THIS_MACHINE,
): Promise<GpuPlace[]> {
  const items = typed.split(",").map((item) => item.trim());
  if (items.includes("")) {
    throw new TypeError(
      `Cannot choose GPUs: expected --gpus to be indices, names or PCI addresses, such as 0,1: got ${
        JSON.stringify(typed)
      }`,
    );
  }
  const places = items.map(async (item) =>
    await pciPlace(item, machine) ?? gpuPlace(item)
  );
  return await Promise.all(places);
}

/** The place that `--gpu` names, or the first GPU. */
export function gpuPlace(gpu: string | undefined): GpuPlace {
  return gpu === undefined
    ? { name: "", words: [], env: {} }
    : { name: gpu, words: [`--gpu=${gpu}`], env: {} };
}

/** The place of a card by its PCI address, as lspci or nvidia-smi prints it; undefined for other texts. */
async function pciPlace(
  typed: string,
  machine: Machine,
): Promise<GpuPlace | undefined> {
  const found = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/i
    .exec(typed);
  if (!found) return undefined;
  const [domain, bus, device, slot] = found.slice(1).map((digits) =>
    (digits ?? "0").toLowerCase()
  ) as [string, string, string, string];
  const wide = domain.replace(/^0+/, "").padStart(4, "0");
  const address = `${wide}:${bus}:${device}.${slot}`;
  // The layer passes over what it does not find, and the process would get another card.
  const kind = await machine.pciClass(address);
  if (!kind?.startsWith("0x03")) {
    throw new Error(
      `Cannot choose GPU "${typed}": expected a graphics card at PCI address ${address}: got ${
        kind === undefined ? "nothing there" : `a device of class ${kind}`
      }: see lspci`,
    );
  }
  if (!FOLDERS.some((folder) => machine.exists(`${folder}/${LAYER}`))) {
    throw new Error(
      `Cannot choose GPU "${typed}" by its PCI address: expected Mesa's layer ${LAYER} in ${
        FOLDERS.join(" or ")
      }: got none: install mesa-vulkan-drivers`,
    );
  }
  return {
    name: address,
    words: [],
    env: {
      DRI_PRIME: `pci-${wide}_${bus}_${device}_${slot}`,
      MESA_VK_DEVICE_SELECT_FORCE_DEFAULT_DEVICE: "1",
    },
  };
}
