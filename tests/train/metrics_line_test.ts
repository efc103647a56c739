import { deepEqual } from "node:assert/strict";
import { type MetricsLine, scalarsOf } from "../../train/metrics_line.ts";
import { metricsLine } from "../tasks/metrics_lines.ts";

Deno.test("scalarsOf() names every number of a line, the path as 0 or 1", () => {
  const line: MetricsLine = {
    ...metricsLine(7),
    path: "sparse",
    auxLoss: 0.5,
    resampled: 3,
  };
  deepEqual(Object.keys(scalarsOf(line)).sort(), [
    "speed/ms_host",
    "speed/ms_load",
    "speed/ms_step",
    "speed/ms_wait",
    "speed/sparsePath",
    "speed/tokensPerSecond",
    "train/L0",
    "train/auxLoss",
    "train/deadShare",
    "train/fvu",
    "train/gradNorm",
    "train/l1",
    "train/lambda",
    "train/loss",
    "train/lr",
    "train/mseSumPerToken",
    "train/resampled",
    "train/tokens",
  ]);
  const { "train/loss": loss, "speed/sparsePath": sparse } = scalarsOf(line);
  deepEqual([loss, sparse], [line.loss, 1]);
});

Deno.test("scalarsOf() leaves out what is not finite", () => {
  const names = Object.keys(scalarsOf({ ...metricsLine(0), fvu: NaN }));
  deepEqual(names.includes("train/fvu"), false);
  deepEqual(names.includes("train/loss"), true);
});
