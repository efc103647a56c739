/**
 * The files of a tokenizer, checked before the tokenizer is built from them.
 * @module
 */
import { z } from "zod";
import { checkJson } from "./check_json.ts";
import { type Folder, readJson, readText } from "./source.ts";

/** What the files of a tokenizer say. */
export interface TokenizerFiles {
  /** Where they lie, for errors. */
  readonly folder: string;
  /** tokenizer.json as it is, checked. */
  readonly tokenizerJson: object;
  /** tokenizer_config.json as it is, or {} where there is none. */
  readonly configJson: object;
  /** The bytes of every token, by id; null where an id has no token. */
  readonly tokens: readonly (Uint8Array | null)[];
  /** Ids of the special tokens. */
  readonly specialIds: ReadonlySet<number>;
  /** Special tokens by role, such as `bos_token`. */
  readonly specialTokens: Readonly<Record<string, string>>;
  /** Jinja text of the chat template, or null. */
  readonly chatTemplate: string | null;
}

/** Ids index an array, so they are capped. */
const MAX_TOKEN_ID = 2 ** 22 - 1;

const isTokenId = (id: unknown): boolean =>
  Number.isInteger(id) && Number(id) >= 0 && Number(id) <= MAX_TOKEN_ID;

/** Text → id. Checked by hand, not entry by entry in zod: there are 10⁵ entries. */
const Vocab = z.custom<Record<string, number>>((json) => {
  if (typeof json !== "object" || json === null) return false;
  const ids = Object.values(json);
  return ids.every(isTokenId) && new Set(ids).size === ids.length;
}, `expected texts with ids of their own from 0 to ${MAX_TOKEN_ID}`);

const isMerge = (merge: unknown): boolean =>
  typeof merge === "string"
    ? merge.includes(" ")
    : Array.isArray(merge) && merge.length === 2 &&
      merge.every((part) => typeof part === "string");

const Merges = z.custom<unknown[]>(
  (json) => Array.isArray(json) && json.every(isMerge),
  "expected pairs of texts",
);

const AddedToken = z.object({
  id: z.int().min(0).max(MAX_TOKEN_ID),
  content: z.string().min(1),
  special: z.boolean(),
});

const TokenizerJson = z.object({
  model: z.object({ type: z.literal("BPE"), vocab: Vocab, merges: Merges }),
  decoder: z.object({ type: z.literal("ByteLevel") }),
  added_tokens: z.array(AddedToken),
});

const SpecialToken = z.union(
  [z.string(), z.object({ content: z.string() })],
  { error: "expected a text or an object with a content" },
).nullish().transform((token) =>
  typeof token === "string" ? token : token?.content
);

const NamedTemplate = z.object({ name: z.string(), template: z.string() });

const ConfigJson = z.object({
  bos_token: SpecialToken,
  eos_token: SpecialToken,
  pad_token: SpecialToken,
  unk_token: SpecialToken,
  chat_template: z.union([z.string(), z.array(NamedTemplate)], {
    error: "expected a text, or a list of named templates",
  }).nullish(),
});

/**
 * Reads and checks the tokenizer of a model folder.
 * @throws {Error} If there is no tokenizer.json.
 * @throws {SyntaxError} If a file is not of the expected form: names file and field.
 */
export async function readTokenizerFiles(
  folder: Folder,
): Promise<TokenizerFiles> {
  const source = await folder.open("tokenizer.json");
  const tokenizerJson = await readJson(source);
  const { model, added_tokens } = checkJson(
    TokenizerJson,
    tokenizerJson,
    source.name,
  );
  const hasConfig = await folder.has("tokenizer_config.json");
  const configJson = hasConfig
    ? await readJson(await folder.open("tokenizer_config.json"))
    : {};
  const config = checkJson(
    ConfigJson,
    configJson,
    `${folder.name}/tokenizer_config.json`,
  );
  const special = added_tokens.filter((token) => token.special);
  const roles = Object.entries(config).filter((entry): entry is [
    string,
    string,
  ] => entry[0].endsWith("_token") && typeof entry[1] === "string");
  return {
    folder: folder.name,
    tokenizerJson: tokenizerJson as object,
    configJson: configJson as object,
    tokens: tokenBytes(model.vocab, added_tokens),
    specialIds: new Set(special.map((token) => token.id)),
    specialTokens: Object.fromEntries(roles),
    chatTemplate: await readChatTemplate(folder, config.chat_template),
  };
}

/** Newer folders have the template in a file of its own, which wins. */
async function readChatTemplate(
  folder: Folder,
  template:
    | string
    | readonly z.infer<typeof NamedTemplate>[]
    | null
    | undefined,
): Promise<string | null> {
  const file = "chat_template.jinja";
  if (await folder.has(file)) return await readText(await folder.open(file));
  if (typeof template === "string") return template;
  return template?.find(({ name }) => name === "default")?.template ?? null;
}

/** The bytes of every token by id. Added tokens stand for their own text. */
function tokenBytes(
  vocab: Readonly<Record<string, number>>,
  added: readonly z.infer<typeof AddedToken>[],
): (Uint8Array | null)[] {
  const byteOf = byteAlphabet();
  const utf8 = new TextEncoder();
  const entries = Object.entries(vocab);
  const highest = entries.reduce((most, [, id]) => Math.max(most, id), -1);
  const top = added.reduce((most, { id }) => Math.max(most, id), highest);
  const tokens = new Array<Uint8Array | null>(top + 1).fill(null);
  for (const [text, id] of entries) {
    const bytes = Array.from(text, (char) => byteOf.get(char));
    tokens[id] = bytes.every((byte) => byte !== undefined)
      ? Uint8Array.from(bytes)
      : utf8.encode(text);
  }
  for (const { content, id } of added) tokens[id] = utf8.encode(content);
  return tokens;
}

/**
 * The character that byte-level BPE writes for each byte: itself where it
 * can be printed, else the next free one from U+0100 on.
 * Source: `bytes_to_unicode` of GPT-2's encoder.py.
 */
function byteAlphabet(): Map<string, number> {
  const alphabet = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) ||
      (byte >= 0xa1 && byte <= 0xff && byte !== 0xad);
    alphabet.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return alphabet;
}
