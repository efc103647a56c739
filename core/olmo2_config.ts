/**
 * The shape of an OLMo-2 model, from the config.json of a Hugging Face folder.
 * @module
 */
import { z } from "zod";
import { type Folder, readJson } from "./source.ts";

/** Sizes and constants of an OLMo-2 model, by the names of the field. */
export interface Olmo2Config {
  /** Width of the residual stream. */
  readonly d_model: number;
  /** Number of transformer blocks. */
  readonly n_layers: number;
  /** Query heads of a block. */
  readonly n_heads: number;
  /** Key and value heads of a block; divides n_heads. */
  readonly n_kv_heads: number;
  /** Width of one head; a multiple of 4. */
  readonly d_head: number;
  /** Width of the SwiGLU layer between gate/up and down projection. */
  readonly d_ffn: number;
  /** Rows of the embedding and of the head. */
  readonly vocab_size: number;
  /** Most tokens of one sequence. */
  readonly context_length: number;
  /** Added to the mean square in every RMSNorm. */
  readonly rms_norm_eps: number;
  /** Base of the rotary frequencies. */
  readonly rope_theta: number;
  /** Whether the head is the embedding matrix. */
  readonly tied_embeddings: boolean;
  /** Token that starts a text, or null. */
  readonly bos_token_id: number | null;
  /** Tokens that end a reply; may be empty. */
  readonly eos_token_ids: readonly number[];
  /** Token that fills a batch, or null. */
  readonly pad_token_id: number | null;
}

/** How every error ends. */
const FIX = "name the folder of an OLMo-2 model";

/** A whole size, capped so that no product of sizes becomes absurd before memory is planned. */
const size = (most: number) => z.int().min(1).max(most);
const tokenId = z.int().min(0);
const positive = z.number().positive();

const Rope = z.object({
  rope_theta: positive.optional(),
  // "type" is the older spelling of "rope_type".
  rope_type: z.literal("default").nullish(),
  type: z.literal("default").nullish(),
}).nullish();

/** Defaults are those of transformers' `Olmo2Config`. */
const ConfigJson = z.object({
  model_type: z.literal("olmo2"),
  architectures: z.tuple([z.literal("Olmo2ForCausalLM")]).nullish(),
  hidden_size: size(2 ** 17),
  num_hidden_layers: size(1024),
  num_attention_heads: size(1024),
  num_key_value_heads: size(1024).nullish(),
  head_dim: size(4096).nullish(),
  intermediate_size: size(2 ** 20),
  vocab_size: size(2 ** 22),
  max_position_embeddings: size(2 ** 24),
  rms_norm_eps: positive.max(1),
  hidden_act: z.literal("silu").default("silu"),
  attention_bias: z.literal(false).default(false),
  tie_word_embeddings: z.boolean().default(false),
  quantization_config: z.null().optional(),
  rope_theta: positive.nullish(),
  rope_parameters: Rope,
  rope_scaling: Rope,
  bos_token_id: tokenId.nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)], {
    error: "expected a token id or a list of them",
  }).nullish(),
  pad_token_id: tokenId.nullish(),
});

const GenerationJson = z.object({
  eos_token_id: ConfigJson.shape.eos_token_id,
});

/**
 * Reads the JSON of a config.json, in the form of transformers 4 (`rope_theta`
 * at the top) or 5 (`rope_parameters`).
 * @throws {TypeError} If a field is missing or of the wrong kind, or the model is no OLMo-2.
 * @throws {RangeError} If a size is out of range or sizes do not fit each other.
 */
export function parseOlmo2Config(json: unknown, fileName: string): Olmo2Config {
  const config = parse(ConfigJson, json, fileName);
  const refuse = (expected: string): RangeError =>
    new RangeError(`Cannot load "${fileName}": ${expected}: ${FIX}`);
  const { hidden_size, num_attention_heads: n_heads } = config;
  const n_kv_heads = config.num_key_value_heads ?? n_heads;
  const d_head = config.head_dim ?? hidden_size / n_heads;
  const rope_theta = config.rope_theta ?? config.rope_parameters?.rope_theta;
  if (n_heads % n_kv_heads !== 0) {
    throw refuse(
      `num_key_value_heads must divide num_attention_heads=${n_heads}: got ${n_kv_heads}`,
    );
  }
  if (d_head % 4 !== 0) { // attention reads four elements at a time
    throw refuse(
      `head_dim must be a multiple of 4: got ${d_head} from hidden_size=${hidden_size} and num_attention_heads=${n_heads}`,
    );
  }
  if (rope_theta === undefined) {
    throw refuse("rope_theta or rope_parameters.rope_theta must be given");
  }
  const eos_token_ids = tokenIds(config.eos_token_id);
  const { bos_token_id = null, pad_token_id = null, vocab_size } = config;
  checkTokenIds(
    [bos_token_id ?? 0, pad_token_id ?? 0, ...eos_token_ids],
    vocab_size,
    fileName,
  );
  return {
    d_model: hidden_size,
    n_layers: config.num_hidden_layers,
    n_heads,
    n_kv_heads,
    d_head,
    d_ffn: config.intermediate_size,
    vocab_size,
    context_length: config.max_position_embeddings,
    rms_norm_eps: config.rms_norm_eps,
    rope_theta,
    tied_embeddings: config.tie_word_embeddings,
    bos_token_id,
    eos_token_ids,
    pad_token_id,
  };
}

/**
 * Reads config.json of a model folder, and the tokens that end a reply from
 * generation_config.json too, where there is one.
 * @throws {Error} If there is no config.json, or as `parseOlmo2Config` does.
 */
export async function readModelConfig(folder: Folder): Promise<Olmo2Config> {
  const source = await folder.open("config.json");
  const config = parseOlmo2Config(await readJson(source), source.name);
  if (!await folder.has("generation_config.json")) return config;
  const generation = await folder.open("generation_config.json");
  const json = parse(
    GenerationJson,
    await readJson(generation),
    generation.name,
  );
  const more = tokenIds(json.eos_token_id);
  checkTokenIds(more, config.vocab_size, generation.name);
  const eos_token_ids = [...new Set([...config.eos_token_ids, ...more])];
  return { ...config, eos_token_ids };
}

/** Parses JSON; the error names the file, the first faulty field, and what it has. */
function parse<T>(schema: z.ZodType<T>, json: unknown, fileName: string): T {
  const result = schema.safeParse(json, { reportInput: true });
  if (result.success) return result.data;
  const { path, code, message, input } = result.error.issues[0]!;
  const field = path.length > 0 ? path.join(".") : "the file";
  const outOfRange = code === "too_big" || code === "too_small";
  const ErrorClass = outOfRange ? RangeError : TypeError;
  const got = typeof input === "number"
    ? `${input}` // JSON has no NaN and no infinity
    : JSON.stringify(input) ?? "nothing";
  throw new ErrorClass(
    `Cannot load "${fileName}": ${field}: ${
      message.replace(/^Invalid input: |^Too \w+: |, received \w+$/g, "")
    }: got ${got.length > 60 ? `${got.slice(0, 57)}...` : got}: ${FIX}`,
  );
}

function tokenIds(json: number | number[] | null | undefined): number[] {
  return typeof json === "number" ? [json] : json ?? [];
}

function checkTokenIds(
  ids: readonly number[],
  vocab_size: number,
  fileName: string,
): void {
  const wrong = ids.find((id) => id >= vocab_size);
  if (wrong === undefined) return;
  throw new RangeError(
    `Cannot load "${fileName}": expected special token ids below vocab_size=${vocab_size}: got ${wrong}: ${FIX}`,
  );
}
