import assert from "node:assert/strict";
import { gatherRows } from "../../kernels/gather_rows.ts";
import { rmsNorm } from "../../kernels/rms_norm.ts";
import { testGpu } from "../gpu_for_tests.ts";

Deno.test("Profiler counts and times the launches of each kernel", async () => {
  const gpu = await testGpu();
  using x = gpu.tensor("x", "f32", [64, 256]);
  using y = gpu.tensor("y", "f32", [64, 256]);
  using weight = gpu.tensor("weight", "f32", [256]);
  using rows = gpu.tensor("rows", "u32", [64]);
  const launch = () =>
    gpu.record("norms", (rec) => {
      rmsNorm.run(rec, { x, weight, y }, { eps: 1 });
      rmsNorm.run(rec, { x, weight, y }, { eps: 1 });
      gatherRows.run(rec, { x, rows, y });
    });
  const profiler = gpu.startProfile();
  launch();
  launch();
  const times = await profiler.stop();
  launch();
  await gpu.settled();
  const launches = times.map(({ kernel, launches }) => [kernel, launches]);
  assert.deepEqual(launches.sort(), [["gather_rows", 2], ["rms_norm", 4]]);
  for (const { kernel, ms } of times) {
    assert.ok(ms > 0 && ms < 60_000, `${kernel}: ${ms} ms`);
  }
  assert.ok(times[0]!.ms >= times[1]!.ms);
});
