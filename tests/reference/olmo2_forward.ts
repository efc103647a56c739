/**
 * The whole of OLMo-2 in float64, over one sequence, from a checkpoint's files.
 * @module
 */
import type { Olmo2Config } from "../../core/olmo2_config.ts";
import type { Checkpoint } from "../../core/safetensors.ts";
import {
  attentionReference,
  rmsNormReference,
  ropeReference,
  siluMulReference,
} from "./olmo2_reference.ts";

type Vector = Float64Array;

/** Called with the residual stream after each block, one vector a token, which it may change. */
export type ReferenceHook = (layer: number, resid: Vector[]) => void;

/** Logits of each token of a sequence. The checkpoint must be of f32. */
export async function forwardReference(
  checkpoint: Checkpoint,
  config: Olmo2Config,
  ids: readonly number[],
  hook: ReferenceHook = () => {},
): Promise<Vector[]> {
  const { d_model, n_layers, rms_norm_eps: eps } = config;
  const tensor = async (name: string) =>
    new Float32Array((await checkpoint.bytes(name)).buffer);
  const norm = async (name: string, rows: readonly Vector[]) => {
    const weight = await tensor(name);
    return rows.map((row) => rmsNormReference(row, weight, eps));
  };
  const project = async (name: string, rows: readonly Vector[]) => {
    const W = await tensor(name);
    return rows.map((row) => product(W, row));
  };
  const embedding = await tensor("model.embed_tokens.weight");
  let resid: Vector[] = ids.map((id) =>
    Float64Array.from(embedding.subarray(id * d_model, (id + 1) * d_model))
  );
  for (let l = 0; l < n_layers; l++) {
    const at = (name: string) => `model.layers.${l}.${name}.weight`;
    const [q, k] = await Promise.all(["q", "k"].map(async (name) => {
      const rows = await project(at(`self_attn.${name}_proj`), resid);
      return (await norm(at(`self_attn.${name}_norm`), rows))
        .map((row, t) => ropeReference(row, turnsOf(config, t)));
    })) as [Vector[], Vector[]];
    const v = await project(at("self_attn.v_proj"), resid);
    const z = attend(config, q, k, v);
    const attended = await project(at("self_attn.o_proj"), z);
    resid = add(
      resid,
      await norm(at("post_attention_layernorm"), attended),
    );
    const gate = await project(at("mlp.gate_proj"), resid);
    const up = await project(at("mlp.up_proj"), resid);
    const ffn = gate.map((row, t) =>
      siluMulReference(Float64Array.of(...row, ...up[t]!))
    );
    resid = add(
      resid,
      await norm(
        at("post_feedforward_layernorm"),
        await project(at("mlp.down_proj"), ffn),
      ),
    );
    hook(l, resid);
  }
  return await project(
    "lm_head.weight",
    await norm("model.norm.weight", resid),
  );
}

/** W · x for W `[out, in]`. */
function product(W: Float32Array, x: Vector): Vector {
  const y = new Float64Array(W.length / x.length);
  for (let i = 0; i < y.length; i++) {
    for (let j = 0; j < x.length; j++) y[i]! += W[i * x.length + j]! * x[j]!;
  }
  return y;
}

function add(a: readonly Vector[], b: readonly Vector[]): Vector[] {
  return a.map((row, t) => row.map((value, j) => value + b[t]![j]!));
}

/** cos and sin of a position's angles, interleaved, `[d_head]`. */
function turnsOf(
  { d_head, rope_theta }: Olmo2Config,
  position: number,
): Vector {
  return Float64Array.from({ length: d_head }, (_, at) => {
    const i = at - at % 2;
    const angle = position * rope_theta ** (-i / d_head);
    return at % 2 === 0 ? Math.cos(angle) : Math.sin(angle);
  });
}

function attend(
  { n_heads, n_kv_heads, d_head }: Olmo2Config,
  q: readonly Vector[],
  k: readonly Vector[],
  v: readonly Vector[],
): Vector[] {
  const sizes = { d_q: n_heads * d_head, d_kv: n_kv_heads * d_head, d_head };
  const flat = (rows: readonly Vector[]): number[] =>
    rows.flatMap((row) => [...row]);
  const [K, V] = [flat(k), flat(v)];
  return q.map((row, t) => {
    const slots = [...Array(t + 1).keys()];
    return attentionReference(row, K, V, slots, sizes);
  });
}
