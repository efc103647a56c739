/**
 * What a dense trainer holds, counted by hand: for tests of the planner that need no device.
 * @module
 */
import type { MemoryRow } from "../../tasks/memory_plan.ts";
import type { SaeRecipe } from "../../train/recipe.ts";

/** Numbers of a block of q8 moments, which share a scale of f32. */
const BLOCK = 256;

/** Tensors of a recipe; the gradient of the pre-activations is one binding wide at most. */
export function plannedTensors(
  { d_sae, batch, moments }: SaeRecipe,
  d_model: number,
  bindingBytes: number,
): MemoryRow[] {
  const nParameters = 2 * d_sae * d_model + d_sae + d_model;
  const momentBytes = moments === "f32" ? 4 : 1 + 4 / BLOCK;
  const acts = 4 * batch * d_sae;
  return [
    { what: "weights", bytes: 4 * nParameters },
    { what: "gradients", bytes: 4 * nParameters },
    { what: "moments", bytes: Math.ceil(2 * momentBytes * nParameters) },
    { what: "activations", bytes: acts },
    {
      what: "gradient of the activations",
      bytes: Math.min(acts, bindingBytes),
    },
    { what: "batch, scaled, and its error", bytes: 10 * batch * d_model },
  ];
}
