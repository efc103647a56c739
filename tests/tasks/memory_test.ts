import { equal } from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { KvCache } from "../../core/kv_cache.ts";
import { openModelFolder } from "../../core/model_folder.ts";
import { Olmo2, Workspace } from "../../core/olmo2.ts";
import { modelBytes, passBytes } from "../../tasks/memory.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;

Deno.test("modelBytes() is what loading takes, but for norms in f32 and the rotary table", async () => {
  const folder = await openModelFolder(directory(MODEL));
  const { checkpoint, config } = folder;
  const { context_length, d_head } = config;
  for (const part of [{}, { nLayers: 3, withHead: false }]) {
    using gpu = await testGpu({});
    using _model = await Olmo2.load(gpu, checkpoint, config, part);
    const rope = 4 * context_length * d_head;
    assertClose([gpu.allocatedBytes - rope], [modelBytes(folder, part)], {
      rtol: 0.005,
      label: "bytes",
    });
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
