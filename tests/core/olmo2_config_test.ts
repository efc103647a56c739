import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import {
  type Olmo2Config,
  parseOlmo2Config,
  readModelConfig,
} from "../../core/olmo2_config.ts";
import { memoryFolder } from "../../core/source.ts";

/** The config.json of allenai/OLMo-2-1124-7B, in the form of transformers 4. */
const OLMO2_7B = {
  architectures: ["Olmo2ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  eos_token_id: 100257,
  hidden_act: "silu",
  hidden_size: 4096,
  initializer_range: 0.02,
  intermediate_size: 11008,
  max_position_embeddings: 4096,
  model_type: "olmo2",
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 32,
  pad_token_id: 100277,
  rms_norm_eps: 1e-06,
  rope_scaling: null,
  rope_theta: 500000,
  tie_word_embeddings: false,
  torch_dtype: "float32",
  use_cache: true,
  vocab_size: 100352,
};

const WANT_7B: Olmo2Config = {
  d_model: 4096,
  n_layers: 32,
  n_heads: 32,
  n_kv_heads: 32,
  d_head: 128,
  d_ffn: 11008,
  vocab_size: 100352,
  context_length: 4096,
  rms_norm_eps: 1e-6,
  rope_theta: 500000,
  tied_embeddings: false,
  bos_token_id: null,
  eos_token_ids: [100257],
  pad_token_id: 100277,
};

const parse7B = (changed: Record<string, unknown>): Olmo2Config =>
  parseOlmo2Config({ ...OLMO2_7B, ...changed }, "m/config.json");

Deno.test("parseOlmo2Config() reads the forms of transformers 4 and 5 alike", () => {
  assert.deepEqual(parse7B({}), WANT_7B);
  const version5 = {
    rope_theta: undefined,
    rope_scaling: undefined,
    rope_parameters: { rope_theta: 500000, rope_type: "default" },
  };
  assert.deepEqual(parse7B(version5), WANT_7B);
});

Deno.test("parseOlmo2Config() takes grouped heads, head_dim, tied embeddings and several ends", () => {
  const config = parse7B({
    num_key_value_heads: 8,
    head_dim: 64,
    tie_word_embeddings: true,
    eos_token_id: [1, 2],
    bos_token_id: 0,
  });
  assert.deepEqual(config, {
    ...WANT_7B,
    n_kv_heads: 8,
    d_head: 64,
    tied_embeddings: true,
    eos_token_ids: [1, 2],
    bos_token_id: 0,
  });
});

Deno.test("parseOlmo2Config() takes the defaults of transformers when fields are missing", () => {
  const config = parse7B({
    architectures: undefined,
    attention_bias: undefined,
    hidden_act: undefined,
    num_key_value_heads: null,
    tie_word_embeddings: undefined,
    eos_token_id: null,
    pad_token_id: undefined,
  });
  assert.deepEqual(config, {
    ...WANT_7B,
    eos_token_ids: [],
    pad_token_id: null,
  });
});

Deno.test("parseOlmo2Config() refuses other models and impossible sizes, naming file and field", () => {
  const refused: [Record<string, unknown>, string, string][] = [
    [
      { model_type: "llama" },
      "TypeError",
      'model_type: expected "olmo2": got "llama"',
    ],
    [
      { model_type: undefined },
      "TypeError",
      'model_type: expected "olmo2": got nothing',
    ],
    [
      { architectures: ["Olmo3ForCausalLM"] },
      "TypeError",
      'architectures.0: expected "Olmo2ForCausalLM": got "Olmo3ForCausalLM"',
    ],
    [
      { attention_bias: true },
      "TypeError",
      "attention_bias: expected false: got true",
    ],
    [
      { hidden_act: "gelu" },
      "TypeError",
      'hidden_act: expected "silu": got "gelu"',
    ],
    [
      { rope_scaling: { type: "linear", factor: 2 } },
      "TypeError",
      'rope_scaling.type: expected "default": got "linear"',
    ],
    [
      { rope_parameters: { rope_type: "yarn" } },
      "TypeError",
      'rope_parameters.rope_type: expected "default": got "yarn"',
    ],
    [
      { rope_theta: undefined },
      "RangeError",
      "rope_theta or rope_parameters.rope_theta must be given",
    ],
    [
      { quantization_config: { bits: 4 } },
      "TypeError",
      'quantization_config: expected null: got {"bits":4}',
    ],
    [
      { num_key_value_heads: 5 },
      "RangeError",
      "num_key_value_heads must divide num_attention_heads=32: got 5",
    ],
    [
      { hidden_size: 4100 },
      "RangeError",
      "head_dim must be a multiple of 4: got 128.125 from hidden_size=4100 and num_attention_heads=32",
    ],
    [
      { head_dim: 66 },
      "RangeError",
      "head_dim must be a multiple of 4: got 66 from hidden_size=4096 and num_attention_heads=32",
    ],
    [
      { hidden_size: 0 },
      "RangeError",
      "hidden_size: expected number to be >=1: got 0",
    ],
    [
      { hidden_size: 1e12 },
      "RangeError",
      "hidden_size: expected number to be <=131072: got 1000000000000",
    ],
    [{ vocab_size: "9" }, "TypeError", 'vocab_size: expected number: got "9"'],
    [
      { num_hidden_layers: 1.5 },
      "TypeError",
      "num_hidden_layers: expected int: got 1.5",
    ],
    [
      { intermediate_size: undefined },
      "TypeError",
      "intermediate_size: expected number: got nothing",
    ],
    [
      { rms_norm_eps: Infinity },
      "TypeError",
      "rms_norm_eps: expected number: got Infinity",
    ],
    [
      { rms_norm_eps: -1 },
      "RangeError",
      "rms_norm_eps: expected number to be >0: got -1",
    ],
    [
      { eos_token_id: ["x"] },
      "TypeError",
      'eos_token_id: expected a token id or a list of them: got ["x"]',
    ],
    [
      { eos_token_id: 100352 },
      "RangeError",
      "expected special token ids below vocab_size=100352: got 100352",
    ],
  ];
  for (const [changed, name, problem] of refused) {
    const message =
      `Cannot load "m/config.json": ${problem}: name the folder of an OLMo-2 model`;
    assert.throws(() => parse7B(changed), { name, message });
  }
  assert.throws(() => parseOlmo2Config(null, "m/config.json"), {
    message:
      /^Cannot load "m\/config.json": the file: expected object: got null: /,
  });
});

Deno.test("readModelConfig() adds the ends of generation_config.json", async () => {
  const json = (value: unknown): Uint8Array =>
    new TextEncoder().encode(JSON.stringify(value));
  const read = (generation: unknown): Promise<Olmo2Config> =>
    readModelConfig(memoryFolder("m", {
      "config.json": json(OLMO2_7B),
      "generation_config.json": json(generation),
    }));
  const config = await read({ eos_token_id: [100265, 100257] });
  assert.deepEqual(config.eos_token_ids, [100257, 100265]);
  assert.deepEqual((await read({})).eos_token_ids, [100257]);
  await assert.rejects(read({ eos_token_id: 2e6 }), {
    message: /^Cannot load "m\/generation_config.json": .+: got 2000000: /,
  });
});

Deno.test("readModelConfig() reads the embedded model", async () => {
  const path = new URL("../../models/tiny-olmo2", import.meta.url).pathname;
  const config = await readModelConfig(directory(path));
  assert.deepEqual(
    [config.d_model, config.n_layers, config.d_head, config.eos_token_ids],
    [192, 8, 32, [0]],
  );
});

Deno.test("readModelConfig() names the folder when there is no config.json", async () => {
  await assert.rejects(readModelConfig(memoryFolder("empty", {})), {
    message:
      'Cannot open "config.json": no such file in "empty": put it there, or name another folder',
  });
});
