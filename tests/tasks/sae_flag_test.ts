import assert from "node:assert/strict";
import { openSae } from "../../tasks/cli.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

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
