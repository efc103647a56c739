import { deepEqual, throws } from "node:assert/strict";
import { gpuPlace, gpuPlaces } from "../../tasks/gpu_places.ts";

const LAYER =
  "/usr/share/vulkan/implicit_layer.d/VkLayer_MESA_device_select.json";

/** A machine with these files. */
function machine(...files: string[]): (path: string) => boolean {
  return (path) => files.includes(path);
}

Deno.test("gpuPlaces() gives indices and names to --gpu, once for each time they are named", () => {
  deepEqual(gpuPlaces("0, NVIDIA A100,0", machine()), [
    { name: "0", words: ["--gpu=0"], env: {} },
    { name: "NVIDIA A100", words: ["--gpu=NVIDIA A100"], env: {} },
    { name: "0", words: ["--gpu=0"], env: {} },
  ]);
  deepEqual(gpuPlace(undefined), { name: "", words: [], env: {} });
});

Deno.test("gpuPlaces() shows a process the card at a PCI address only, as lspci and nvidia-smi write it", () => {
  const card = "/sys/bus/pci/devices/0000:41:0a.0";
  const [short, long, nvidia] = gpuPlaces(
    "41:0a.0,0000:41:0A.0,00000000:41:0A.0",
    machine(card, LAYER),
  );
  deepEqual(short, {
    name: "0000:41:0a.0",
    words: [],
    env: {
      DRI_PRIME: "pci-0000_41_0a_0",
      MESA_VK_DEVICE_SELECT_FORCE_DEFAULT_DEVICE: "1",
    },
  });
  deepEqual(long, short);
  deepEqual(nvidia, short);
});

Deno.test("gpuPlaces() keeps a domain that is not 0", () => {
  const [place] = gpuPlaces(
    "10000:01:00.0",
    machine("/sys/bus/pci/devices/10000:01:00.0", LAYER),
  );
  deepEqual(place?.env["DRI_PRIME"], "pci-10000_01_00_0");
});

Deno.test("gpuPlaces() refuses addresses without a card, cards without Mesa's layer, and gaps", () => {
  throws(
    () => gpuPlaces("41:00.0", machine(LAYER)),
    /^Error: Cannot choose GPU "41:00\.0": .*there is none at 0000:41:00\.0/,
  );
  throws(
    () => gpuPlaces("41:00.0", machine("/sys/bus/pci/devices/0000:41:00.0")),
    /^Error: Cannot choose GPU "41:00\.0" .*install mesa-vulkan-drivers/,
  );
  for (const typed of ["", "0,,1", "0,"]) {
    throws(() => gpuPlaces(typed, machine()), /^TypeError: Cannot choose GPUs/);
  }
});
