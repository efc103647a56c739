/**
 * Runs of `steer`, and SAEs for them.
 * @module
 */
import assert from "node:assert/strict";
import { type MadeSae, makeSae } from "./made_sae.ts";
import { runTask, scratchFolder, type TaskRun } from "./run_task.ts";

const LABELS = new Map([
  [7, { label: "ice hockey", source: "a test" }],
  [8, { label: "twin", source: "a test" }],
  [9, { label: "twin", source: "a test" }],
]);

/** Runs `steer` quietly. */
export const steer = (...args: string[]): Promise<TaskRun> =>
  runTask(["steer", ...args, "--quiet"]);

/** What `--json` prints. */
export interface Report {
  readonly sampling: Readonly<Record<string, unknown>>;
  readonly prompt_ids: readonly number[];
  readonly saes: readonly { sae: string; hook_point: string }[];
  readonly steering: readonly {
    feature: number;
    layer: number;
    label: string | null;
  }[];
  readonly replies: readonly {
    steered: boolean;
    text: string | null;
    ids: readonly number[];
    activations?: readonly (readonly number[])[];
  }[];
}

/** What `steer --json` prints. */
export async function steerJson(...args: string[]): Promise<Report> {
  const { code, stdout, stderr } = await steer(...args, "--json");
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

/** A scratch folder with an SAE. */
export async function saeFolder(
  options: MadeSae = { labels: LABELS },
): Promise<{ path: string } & Disposable> {
  const folder = scratchFolder();
  await makeSae(folder.path, options);
  return folder;
}
