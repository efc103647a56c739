/**
 * Hook points: the named places where a model is read and steered.
 * @module
 */

/**
 * A place on the residual stream, with layers counted from 0.
 * `resid_post[l]` is the stream after block l. `final_norm@l` is the model's
 * final norm applied to the output of block l: what a model cut after that block
 * gives as its last hidden state, and what open-concept-steering trained on.
 */
export type HookPoint = `resid_post[${number}]` | `final_norm@${number}`;

/** The two kinds of place. */
export type HookSite = "resid_post" | "final_norm";

/** The parts of a hook point. */
export interface HookPlace {
  /** Raw stream, or read through the final norm. */
  readonly site: HookSite;
  /** Block whose output it is, from 0. */
  readonly layer: number;
}

const FORM = /^(?:resid_post\[(0|[1-9]\d{0,4})\]|final_norm@(0|[1-9]\d{0,4}))$/;

/**
 * Checks text that names a hook point.
 * @param n_layers Number of blocks of the model; without it any layer passes.
 * @throws {SyntaxError} If it is neither form.
 * @throws {RangeError} If the model has no such layer.
 */
export function parseHookPoint(text: string, n_layers?: number): HookPoint {
  if (!isHookPoint(text)) {
    throw new SyntaxError(
      `Cannot parse hook point ${
        JSON.stringify(text)
      }: expected resid_post[l] or final_norm@l with a layer l from 0`,
    );
  }
  const { layer } = hookPlace(text);
  if (n_layers !== undefined && layer >= n_layers) {
    throw new RangeError(
      `Cannot hook "${text}": expected a layer from 0 to ${
        n_layers - 1
      }, as the model has ${n_layers}: got ${layer}`,
    );
  }
  return text;
}

/** Whether text is a hook point of any model. */
export function isHookPoint(text: string): text is HookPoint {
  return FORM.test(text);
}

/** The parts of a hook point. */
export function hookPlace(hookPoint: HookPoint): HookPlace {
  const [, residPost, finalNorm] = FORM.exec(hookPoint) ?? [];
  return residPost !== undefined
    ? { site: "resid_post", layer: Number(residPost) }
    : { site: "final_norm", layer: Number(finalNorm) };
}

/**
 * Where an SAE is trained unless told otherwise: the stream in the middle, `resid_post[n_layers/2 - 1]`.
 * The layer is rounded down, and is 0 for a model of one block.
 */
export function defaultHookPoint(n_layers: number): HookPoint {
  return `resid_post[${Math.max(Math.floor(n_layers / 2) - 1, 0)}]`;
}

/** The module of a block, `layers.l` or GPT-2's `h.l`, with or without what it lies in; and dictionary_learning's name. */
const BLOCK = /^(?:(?:\w+\.)*(?:layers|h)\.|resid_post_layer_)(\d+)$/;
/** TransformerLens: the stream before or after a block. */
const STREAM = /^blocks\.(\d+)\.hook_resid_(pre|post)$/;

/** The hook point that other tools call by this name, such as `blocks.7.hook_resid_post`; undefined if it is no such. */
export function hookPointNamed(name: string): HookPoint | undefined {
  const [, block] = BLOCK.exec(name) ?? [];
  const [, index, when] = STREAM.exec(name) ?? [];
  // What goes into a block is what came out of the one before.
  const layer = Number(block ?? index) - (when === "pre" ? 1 : 0);
  const hookPoint = `resid_post[${layer}]`;
  return isHookPoint(hookPoint) ? hookPoint : undefined;
}
