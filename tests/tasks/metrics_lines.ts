/**
 * Metrics as a run logs them, for tests.
 * @module
 */
import type { MetricsLine } from "../../train/metrics_line.ts";

/** The line of a step of a run that goes well. */
export function metricsLine(step: number): MetricsLine {
  return {
    step,
    tokens: 1024 * (step + 1),
    loss: 100 / (step + 1),
    mseSumPerToken: 60 / (step + 1),
    l1: 40 / (step + 1),
    L0: 800 / (step + 10),
    fvu: 1 / (step + 1),
    deadShare: Math.min(0.5, step / 1000),
    gradNorm: 2 / (step + 1),
    lambda: Math.min(1, step / 50),
    lr: 1e-3,
    tokensPerSecond: 34_000,
    path: step < 50 ? "dense" : "sparse",
    ms: { step: 30, load: 0.3, host: 1.2, wait: 27 },
  };
}
