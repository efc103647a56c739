/**
 * Small residuals and SAEs of the embedded model, for tests of the tasks that read them.
 * @module
 */
import { equal } from "node:assert/strict";
import { runTask } from "./run_task.ts";

/** Flags of an SAE that trains in a second. */
export const SMALL_RECIPE: readonly string[] = [
  "--d-sae=64",
  "--batch=64",
  "--steps=30",
  "--hold-out=200",
  "--lr=0.003",
];

/** Collects about a thousand vectors into `cwd/NAME`. */
export async function collectSmall(
  cwd: string,
  name: string,
  ...flags: string[]
): Promise<void> {
  const words = [`--out=${name}`, "--documents=16", "--pass-tokens=512"];
  const run = await runTask(["collect", ...words, ...flags], { cwd });
  equal(run.code, 0, run.stderr);
}

/** Trains a small SAE into `cwd/NAME` on `cwd/residuals`. */
export async function trainSmall(
  cwd: string,
  name: string,
  ...flags: string[]
): Promise<void> {
  const words = ["--residuals=residuals", `--out=${name}`, ...SMALL_RECIPE];
  const run = await runTask(["train", ...words, ...flags], { cwd });
  equal(run.code, 0, run.stderr);
}
