import { type Olmo2Config, readModelConfig } from "./olmo2_config.ts";
import { type Checkpoint, openCheckpoint } from "./safetensors.ts";
import type { QuantizedDtype } from "../gpu/mod.ts";
import type { Folder } from "./source.ts";
import { Tokenizer } from "./tokenizer.ts";

/** A model's files, opened and checked; weights are still where they were. */
export interface ModelFolder {
  /** The folder's name, for errors and metadata. */
  readonly name: string;
  /** Sizes and constants. */
  readonly config: Olmo2Config;
  /** The weights, where they lie. */
  readonly checkpoint: Checkpoint;
  /** Text to tokens and back. */
  readonly tokenizer: Tokenizer;
  /** Tells one checkpoint from another; stored with what is made from it. */
  readonly fingerprint: string;
  /** How matrices are rounded when they are loaded; they stay as the files have them when absent. */
  readonly quantize?: QuantizedDtype;
}

/**
 * Opens a Hugging Face folder of an OLMo-2 model.
 * @throws {Error} If a file is missing, damaged or of another architecture, naming it.
 * @throws {RangeError} If the tokenizer has more tokens than the embedding.
 */
export async function openModelFolder(
  folder: Folder,
  quantize?: QuantizedDtype,
): Promise<ModelFolder> {
  const config = await readModelConfig(folder);
  const checkpoint = await openCheckpoint(folder);
  const tokenizer = await Tokenizer.load(folder);
  if (tokenizer.vocabSize > config.vocab_size) {
    throw new RangeError(
      `Cannot load "${folder.name}": expected a tokenizer of at most vocab_size=${config.vocab_size} tokens, the rows of the embedding: got ${tokenizer.vocabSize}: take tokenizer.json and config.json of one model`,
    );
  }
  const fingerprint = await modelFingerprint(config, checkpoint);
  return {
    name: folder.name,
    config,
    checkpoint,
    tokenizer,
    fingerprint,
    ...(quantize && { quantize }),
  };
}

/**
 * The fingerprint of what a model computes, `0123456789abcdef` or `0123456789abcdef-q8`: vectors of one whose weights are
 * quantized are not those of the checkpoint.
 */
export function dataFingerprint(
  { fingerprint, quantize }: Pick<ModelFolder, "fingerprint" | "quantize">,
): string {
  return quantize === undefined ? fingerprint : `${fingerprint}-${quantize}`;
}

/** The fingerprint of the checkpoint, of a {@link dataFingerprint} too. */
export function checkpointFingerprint(fingerprint: string): string {
  return fingerprint.replace(/-q[48]$/, "");
}

/**
 * SHA-256, 16 hex digits, of the sizes, the names and shapes of all tensors, and the
 * values of one norm and 16 rows of the embedding: tells fine-tuned copies apart
 * without reading gigabytes.
 */
export async function modelFingerprint(
  config: Olmo2Config,
  checkpoint: Checkpoint,
): Promise<string> {
  const {
    d_model,
    n_layers,
    n_heads,
    n_kv_heads,
    d_ffn,
    vocab_size,
    rope_theta,
  } = config;
  const sizes = {
    d_model,
    n_layers,
    n_heads,
    n_kv_heads,
    d_ffn,
    vocab_size,
    rope_theta,
  };
  const tensors = checkpoint.names().sort().map((name) => {
    const { dtype, shape } = checkpoint.info(name);
    return [name, dtype, shape];
  });
  const text = new TextEncoder().encode(JSON.stringify([sizes, tensors]));
  const norm = await checkpoint.bytes(
    `model.layers.${n_layers - 1}.post_feedforward_layernorm.weight`,
  );
  const rows = await checkpoint.bytes(
    "model.embed_tokens.weight",
    0,
    Math.min(16, vocab_size),
  );
  const bytes = new Uint8Array(
    await new Blob([text, norm, rows]).arrayBuffer(),
  );
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return new Uint8Array(digest).toHex().slice(0, 16);
}

/**
 * The token that starts every document: the model's own, else the tokenizer's,
 * else the one that ends a text, with which OLMo-2 separates documents.
 * @throws {Error} If the folder tells none.
 */
export function startTokenId({ name, config, tokenizer }: ModelFolder): number {
  const { bosToken, eosTokenIds } = tokenizer;
  const ofTokenizer = bosToken === null
    ? eosTokenIds[0]
    : tokenizer.encode(bosToken, { addSpecial: false })[0];
  const id = config.bos_token_id ?? ofTokenizer ?? config.eos_token_ids[0];
  if (id !== undefined) return id;
  throw new Error(
    `Cannot start a text for "${name}": expected bos_token_id or eos_token_id in config.json: got neither`,
  );
}
