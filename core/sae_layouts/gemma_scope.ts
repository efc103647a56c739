/**
 * Gemma Scope: `params.npz`, whose path tells the layer.
 * Source: Gemma Scope's tutorial; its SAEs are jumprelu without an input bias.
 * @module
 */
import { type HookPoint, isHookPoint } from "../hook_point.ts";
import { type SaeForm, storedVector } from "../sae_form.ts";
import { featureRows, matrixSizes } from "../sae_rows.ts";
import type { TensorFile } from "../tensor_file.ts";

/**
 * The SAE of a file.
 * @throws {TypeError} If a tensor has another shape or dtype than w_enc tells.
 * @throws {RangeError} If one is missing.
 */
export function gemmaScopeForm(file: TensorFile): SaeForm {
  const { d_model, d_sae } = matrixSizes(file, "w_enc", "[d_model, d_sae]");
  const hookPoint = residPost(file.name);
  return {
    layout: "gemma-scope",
    d_model,
    d_sae,
    metadata: {
      architecture: "jumprelu",
      inputScale: 1,
      ...(hookPoint && { hookPoint }),
    },
    W_enc: featureRows(file, "w_enc", d_sae, d_model, "[d_model, d_sae]"),
    b_enc: storedVector(file, "b_enc", d_sae),
    W_dec: featureRows(file, "w_dec", d_sae, d_model, "[d_sae, d_model]"),
    b_dec: storedVector(file, "b_dec", d_model),
    threshold: storedVector(file, "threshold", d_sae),
  };
}

/** Those of the residual stream are in repositories that end in `-res`, in a folder of their layer. */
function residPost(path: string): HookPoint | undefined {
  const [, layer] =
    /gemma-scope-[\w-]*-res(?:-[\w-]*)?[/\\].*layer_(\d+)[/\\]/.exec(path) ??
      [];
  const hookPoint = `resid_post[${layer}]`;
  return isHookPoint(hookPoint) ? hookPoint : undefined;
}
