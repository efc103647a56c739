import { deepEqual, rejects } from "node:assert/strict";
import { gpuPlace, gpuPlaces, type Machine } from "../../tasks/gpu_places.ts";

const LAYER =
  "/usr/share/vulkan/implicit_layer.d/VkLayer_MESA_device_select.json";

/** A machine with these PCI devices, and Mesa's layer or not. */
function machine(
  classes: Readonly<Record<string, string>> = {},
  hasLayer = true,
): Machine {
  return {
    pciClass: (address) => Promise.resolve(classes[address]),
    exists: (path) => hasLayer && path === LAYER,
  };
}

Deno.test("gpuPlaces() gives indices and names to --gpu, once for each time they are named", async () => {
  deepEqual(await gpuPlaces("0, NVIDIA A100,0", machine()), [
    { name: "0", words: ["--gpu=0"], env: {} },
    { name: "NVIDIA A100", words: ["--gpu=NVIDIA A100"], env: {} },
    { name: "0", words: ["--gpu=0"], env: {} },
  ]);
  deepEqual(gpuPlace(undefined), { name: "", words: [], env: {} });
});

Deno.test("gpuPlaces() shows a process the card at a PCI address only, as lspci and nvidia-smi write it", async () => {
  const [short, long, nvidia] = await gpuPlaces(
    "41:0a.0,0000:41:0A.0,00000000:41:0A.0",
    machine({ "0000:41:0a.0": "0x030200" }),
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

Deno.test("gpuPlaces() keeps a domain that is not 0", async () => {
  const [place] = await gpuPlaces(
    "10000:01:00.0",
    machine({ "10000:01:00.0": "0x030000" }),
  );
  deepEqual(place?.env["DRI_PRIME"], "pci-10000_01_00_0");
});

for (
  const [what, typed, there, message] of [
    [
      "an address of nothing",
      "41:00.0",
      machine(),
      /at PCI address 0000:41:00\.0: got nothing there/,
    ],
    [
      "an address of a network card",
      "41:00.0",
      machine({ "0000:41:00.0": "0x020000" }),
      /got a device of class 0x020000/,
    ],
    [
      "an address without Mesa's layer",
      "41:00.0",
      machine({ "0000:41:00.0": "0x030000" }, false),
      /install mesa-vulkan-drivers/,
    ],
    ["nothing", "", machine(), /expected --gpus to be indices/],
    ["a gap", "0,,1", machine(), /expected --gpus to be indices/],
    ["a gap at the end", "0,", machine(), /expected --gpus to be indices/],
  ] as const
) {
  Deno.test(`gpuPlaces() refuses ${what}`, async () => {
    await rejects(() => gpuPlaces(typed, there), message);
  });
}
