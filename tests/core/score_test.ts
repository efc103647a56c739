import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { Olmo2 } from "../../core/olmo2.ts";
import { readModelConfig } from "../../core/olmo2_config.ts";
import { openCheckpoint } from "../../core/safetensors.ts";
import { scoreSequences } from "../../core/score.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";

async function loadModel(gpu: Gpu): Promise<Olmo2> {
  const folder = directory(
    new URL("../../models/tiny-olmo2", import.meta.url).pathname,
  );
  const checkpoint = await openCheckpoint(folder);
  return await Olmo2.load(gpu, checkpoint, await readModelConfig(folder));
}

const SEQUENCES = [101, 2, 77].map((length, i) =>
  Array.from({ length }, (_, t) => (31 * i + 17 * t + 3) % 4096)
);

Deno.test("scoreSequences() gives the same when logits exceed a binding, and in passes of one sequence", async () => {
  using whole = await loadModel(await testGpu());
  const want = await scoreSequences(whole, SEQUENCES);
  assert.deepEqual(want.map(({ length }) => length), [100, 1, 76]);
  assert.ok(want.every((nll) => nll.every((nats) => nats > 0 && nats < 100)));
  const inPasses = await scoreSequences(whole, SEQUENCES, { tokensPerPass: 1 });
  // 64 rows of logits take 1 MiB; all 180 take 3.
  using gpu = await testGpu({ maxBindingBytes: 2 ** 20 });
  using narrow = await loadModel(gpu);
  const inWindows = await scoreSequences(narrow, SEQUENCES);
  for (const [i, nll] of want.entries()) {
    // Other tiles may sum in another order.
    const options = { atol: 1e-5, label: `sequence ${i}` };
    assertClose(inPasses[i]!, nll, options);
    assertClose(inWindows[i]!, nll, options);
  }
});

Deno.test("scoreSequences() gives nothing for no sequences", async () => {
  using model = await loadModel(await testGpu());
  assert.deepEqual(await scoreSequences(model, []), []);
});
