import assert from "node:assert/strict";
import { join } from "node:path";
import { readLabels } from "../../steer/labels.ts";
import { openSae } from "../../tasks/cli.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { makeSae } from "./made_sae.ts";
import { scratchFolder } from "./run_task.ts";

const FIXTURES = new URL("../fixtures", import.meta.url).pathname;

Deno.test("openSae() takes a folder, or the file of an SAE of whatever tool", async () => {
  const layouts: Record<string, string> = {
    "ocs-checkpoint": "open-concept-steering",
    "ocs-checkpoint/sae_final.pt": "open-concept-steering",
    "ocs-checkpoint/sae_weights.safetensors": "open-concept-steering",
    "sae-formats/BatchTopKSAE": "dictionary-learning",
    "sae-formats/BatchTopKSAE/ae.pt": "dictionary-learning",
    "sae-formats/npz": "gemma-scope",
    "sae-formats/npz/compressed.npz": "gemma-scope",
  };
  for (const [path, layout] of Object.entries(layouts)) {
    const sae = await openSae(`${FIXTURES}/${path}`);
    assert.equal(sae.layout, layout, path);
  }
  const placed = await openSae(`${FIXTURES}/ocs-checkpoint/sae_final.pt`, 3);
  assert.equal(placed.metadata.hookPoint, "final_norm@3");
  await rejectsInOneLine(
    () => openSae(`${FIXTURES}/sae-formats/README.md`),
    /expected a file that ends in .safetensors, .pt or .npz: got .md/,
  );
});

Deno.test("openSae() takes labels and measurements for those of the SAE that the folder is opened as alone", async () => {
  using scratch = scratchFolder();
  const { path } = scratch;
  await makeSae(path, { labels: new Map([[1, { label: "dogs" }]]) });
  const usual = join(path, "sae_weights.safetensors");
  const other = join(path, "other.safetensors");
  await Deno.copyFile(usual, other);
  const known = async (typed: string) => {
    const sae = await openSae(typed);
    const labels = await readLabels(sae.beside, sae.d_sae);
    return [labels.size, (await sae.featureMax())?.length];
  };
  assert.deepEqual(await known(path), [1, 64]);
  assert.deepEqual(await known(usual), [1, 64]);
  assert.deepEqual(await known(other), [0, undefined]);
  await Deno.remove(usual);
  assert.deepEqual(await known(other), [1, 64]);
  await Deno.copyFile(other, join(path, "another.safetensors"));
  assert.deepEqual(await known(other), [0, undefined]);
});
