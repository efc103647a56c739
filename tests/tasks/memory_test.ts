import { equal } from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { KvCache } from "../../core/kv_cache.ts";
import { openModelFolder } from "../../core/model_folder.ts";
import { Olmo2, Workspace } from "../../core/olmo2.ts";
import { modelBytes, passBytes } from "../../tasks/memory.ts";
import { testGpu } from "../gpu_for_tests.ts";

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;

Deno.test("modelBytes() is what loading takes, but for a word, quantized or not", async () => {
  for (const quantize of [undefined, "q8", "q4"] as const) {
    const folder = await openModelFolder(directory(MODEL), quantize);
    const { checkpoint, config } = folder;
    for (const part of [{}, { nLayers: 3, withHead: false }]) {
      using gpu = await testGpu({});
      const options = { ...part, quantize };
      using _model = await Olmo2.load(gpu, checkpoint, config, options);
      equal(gpu.allocatedBytes, modelBytes(folder, part) + 4);
    }
  }
});

Deno.test("passBytes() is what a workspace and its caches take, but for ids, places, blocks and the table of pages", async () => {
  const { config } = await openModelFolder(directory(MODEL));
  const T = 96; // whole pages
  for (const isShared of [true, false]) {
    using gpu = await testGpu({});
    using _work = new Workspace(gpu, config, T);
    using cache = new KvCache(gpu, config, { nRows: 1, nLayers: 5, isShared });
    cache.fit([T]);
    const other = 28 * T + cache.table.byteLength;
    equal(passBytes(config, T, isShared ? 1 : 5), gpu.allocatedBytes - other);
  }
});
