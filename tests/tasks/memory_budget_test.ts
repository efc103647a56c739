import { deepEqual, equal, ok, throws } from "node:assert/strict";
import {
  hostMemory,
  memoryBudget,
  parseBytes,
} from "../../tasks/memory_budget.ts";

Deno.test("parseBytes() reads sizes as people write them", () => {
  const sizes: [string, number][] = [
    ["24GB", 24e9],
    ["24 GiB", 24 * 2 ** 30],
    ["24g", 24e9],
    ["1.5e9", 1.5e9],
    ["512MB", 512e6],
    ["80Gi", 80 * 2 ** 30],
    ["1000", 1000],
  ];
  for (const [text, bytes] of sizes) equal(parseBytes(text), bytes, text);
  for (const text of ["", "GB", "-1GB", "24XB", "0", "1e99", "24 GB x"]) {
    throws(() => parseBytes(text), /expected a size such as 24GB/, text);
  }
});

Deno.test({
  name:
    "memoryBudget() of a card is what was typed, and the host's is asked only where it may be",
  permissions: "none",
  fn: () => {
    equal(hostMemory(), undefined);
    deepEqual(memoryBudget({ isSoftware: false }), { isShared: false });
    deepEqual(memoryBudget({ isSoftware: true }, "2GB"), {
      isShared: true,
      gpu: 2e9,
    });
  },
});

Deno.test("hostMemory() is what the system has left", async () => {
  const { stdout } = await new Deno.Command("deno", {
    args: [
      "eval",
      `import { hostMemory } from ${
        JSON.stringify(
          new URL("../../tasks/memory_budget.ts", import.meta.url).href,
        )
      };
      console.log(hostMemory(), Deno.systemMemoryInfo().total);`,
    ],
  }).output();
  const [left, total] = new TextDecoder().decode(stdout).split(" ").map(Number);
  ok(left! > 0 && left! <= total!, `${left} of ${total}`);
});
