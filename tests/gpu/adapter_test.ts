import assert from "node:assert/strict";
import { adapterName, Gpu, listAdapters } from "../../gpu/mod.ts";

/** Runs code that may use `Gpu` in a process of its own, and gives what it prints. */
async function printed(
  code: string,
  env: Record<string, string>,
): Promise<string> {
  const module = new URL("../../gpu/mod.ts", import.meta.url).href;
  const { stdout } = await new Deno.Command("deno", {
    args: ["eval", `import { Gpu } from "${module}";\n${code}`],
    env: { NO_COLOR: "1", ...env },
    stdout: "piped",
  }).output();
  return new TextDecoder().decode(stdout).trim();
}

Deno.test("Gpu.open() takes an adapter by index and by a part of its name", async () => {
  const [first] = await listAdapters();
  const name = adapterName(first!);
  const part = name.slice(1, 8).toUpperCase();
  for (const gpu of [undefined, "0", name, part]) {
    using opened = await Gpu.open(gpu === undefined ? {} : { gpu });
    assert.equal(opened.name, name);
  }
});

Deno.test("Gpu.open() takes digits that are no index as a part of the name", async () => {
  const names = (await listAdapters()).map(adapterName);
  const digits = names[0]!.match(/\d{2,}/)?.[0];
  if (digits === undefined) return; // this adapter's name has none
  using opened = await Gpu.open({ gpu: digits });
  assert.equal(opened.name, names.find((name) => name.includes(digits)));
});

Deno.test("Gpu.open() lists the adapters when none is meant", async () => {
  const names = (await listAdapters()).map(adapterName);
  const list = names.map((name, i) => `${i} "${name}"`).join(", ");
  for (const gpu of ["99999", "no such card"]) {
    await assert.rejects(Gpu.open({ gpu }), {
      name: "RangeError",
      message:
        `Cannot open GPU "${gpu}": expected an index or a part of a name: there is ${list}`,
    });
  }
});

Deno.test("Gpu.open() has the adapter's own limits", async () => {
  const [adapter] = await listAdapters();
  using gpu = await Gpu.open();
  for (const limit of Object.keys(gpu.limits) as (keyof Gpu["limits"])[]) {
    assert.equal(gpu.device.limits[limit], adapter!.limits[limit], limit);
  }
  using small = await Gpu.open({ maxBindingBytes: 4096 });
  assert.equal(small.limits.maxStorageBufferBindingSize, 4096);
});

Deno.test("Gpu.open() says what to install when there is no adapter", async () => {
  const code = `await Gpu.open().then(
    () => console.log("opened"), (error) => console.log(String(error)))`;
  const text = await printed(code, { DENO_WEBGPU_BACKEND: "none" });
  assert.equal(
    text,
    "Error: Cannot open a GPU: WebGPU found no adapter: install a Vulkan driver (on Debian and Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1)",
  );
});
