import { deepEqual, equal, match, ok } from "node:assert/strict";
import { join } from "node:path";
import { runTask } from "./run_task.ts";

/** A model so small that little but the products and the training step takes time. */
const MODEL = join(import.meta.dirname!, "../fixtures/olmo2-mha-f32");

Deno.test("bench prints a rate of every stage, of a model with a short context too", async () => {
  const run = await runTask(["bench", "--model", MODEL, "--json"]);
  equal(run.code, 0, run.stderr);
  const { gpu, rates } = JSON.parse(run.stdout);
  ok(gpu.length > 0);
  for (const { what, ms, rate } of rates) {
    ok(Number.isFinite(ms) && ms > 0, `${what}: ${ms} ms`);
    ok(Number.isFinite(rate) && rate > 0, `${what}: ${rate}`);
  }
  deepEqual(rates.map(({ unit }: { unit: string }) => unit), [
    ...Array(4).fill("GFLOP/s"),
    ...Array(3).fill("tokens/s"),
    "steps/s",
  ]);
  const stages = rates.map(({ what }: { what: string }) => what).join("; ");
  match(stages, /SAE encode .*; forward, .*generate, 1 reply .*; SAE step/);
});
