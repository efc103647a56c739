/**
 * Text to token ids and back, with the tokenizer.json and the chat template of
 * a Hugging Face model folder. Only byte-level BPE, which is what OLMo-2 has:
 * there every token is a sequence of bytes, so that tokens can be placed in
 * the text exactly and streamed without half a character.
 * @module
 */
import { Template } from "@huggingface/jinja";
import { Tokenizer as HfTokenizer } from "@huggingface/tokenizers";
import type { Folder } from "./source.ts";
import { readTokenizerFiles, type TokenizerFiles } from "./tokenizer_files.ts";

/** One turn of a conversation. */
export interface ChatMessage {
  /** Who speaks. */
  readonly role: "system" | "user" | "assistant";
  /** What is said. */
  readonly content: string;
}

/** Turns token ids into text as they come. */
export interface StreamDecoder {
  /** The text that is complete with this token: "" while a character is not. */
  push(id: number): string;
  /** What is left, U+FFFD for a character that stayed incomplete. All pieces joined are what `decode` gives. */
  end(): string;
}

/** Options of decoding. */
export interface DecodeOptions {
  /** Leave out special tokens such as `<|endoftext|>`; default false. */
  readonly skipSpecial?: boolean;
}

/** The tokenizer of one model. */
export class Tokenizer {
  /** Highest token id + 1; the model's vocab_size may be larger, for alignment. */
  readonly vocabSize: number;
  /** Text of the token that starts a document, or null. */
  readonly bosToken: string | null;
  /** Tokens that end a text, by tokenizer_config.json; the model's own list is in `Olmo2Config`. */
  readonly eosTokenIds: readonly number[];
  /** Tokens that are no text, such as `<|endoftext|>`. */
  readonly specialIds: ReadonlySet<number>;
  readonly #tokenizer: HfTokenizer;
  readonly #files: TokenizerFiles;

  private constructor(tokenizer: HfTokenizer, files: TokenizerFiles) {
    this.#tokenizer = tokenizer;
    this.#files = files;
    const { specialTokens } = files;
    this.vocabSize = files.tokens.length;
    this.specialIds = files.specialIds;
    this.bosToken = specialTokens["bos_token"] ?? null;
    const eos = tokenizer.token_to_id(specialTokens["eos_token"] ?? "");
    this.eosTokenIds = eos === undefined ? [] : [eos];
  }

  /**
   * Reads tokenizer.json and, where there are, tokenizer_config.json and chat_template.jinja.
   * @throws {Error} If a file is missing or is no byte-level BPE: names the file.
   */
  static async load(folder: Folder): Promise<Tokenizer> {
    const files = await readTokenizerFiles(folder);
    try {
      const tokenizer = new HfTokenizer(files.tokenizerJson, files.configJson);
      return new Tokenizer(tokenizer, files);
    } catch (cause) {
      throw new SyntaxError(
        `Cannot load "${folder.name}/tokenizer.json": ${oneLine(cause)}`,
        { cause },
      );
    }
  }

  /**
   * Token ids of a text; special tokens written out in it are recognized.
   * `addSpecial` (default true) adds what the tokenizer puts around a text;
   * leave it off for text of a chat template, which has it already.
   * @throws {RangeError} If a part of the text has no token.
   */
  encode(text: string, options: { addSpecial?: boolean } = {}): number[] {
    const { ids } = this.#tokenizer.encode(text, {
      add_special_tokens: options.addSpecial ?? true,
    });
    if (ids.every((id) => Number.isInteger(id))) return ids;
    throw new RangeError(
      `Cannot encode text: expected a token for every part of it: got none for ${
        JSON.stringify(text.slice(0, 40))
      }`,
    );
  }

  /**
   * Token ids of a text without added special tokens, and where each token
   * starts: the index of the first UTF-16 code unit of the first character that
   * it covers, wholly or in part. Equal starts are tokens that share a character.
   * @throws {RangeError} If the tokenizer changes the text before it splits it.
   */
  encodeWithOffsets(text: string): { ids: number[]; starts: number[] } {
    const ids = this.encode(text, { addSpecial: false });
    const bytes = new TextEncoder().encode(text);
    const starts: number[] = [];
    let unit = 0; // start of the current character in UTF-16 code units
    let unitByte = 0; // and in bytes
    let byte = 0; // start of the current token
    for (const id of ids) {
      for (;;) {
        const codePoint = text.codePointAt(unit) ?? 0;
        if (unitByte + utf8Length(codePoint) > byte) break;
        unitByte += utf8Length(codePoint);
        unit += codePoint > 0xffff ? 2 : 1;
      }
      starts.push(unit);
      const token = this.#bytes(id);
      if (!token.every((value, i) => value === bytes[byte + i])) break;
      byte += token.length;
    }
    if (byte === bytes.length && starts.length === ids.length) {
      return { ids, starts };
    }
    throw new RangeError(
      `Cannot place the tokens of a text: expected tokens that spell it: got others at ${
        JSON.stringify(text.slice(unit, unit + 20))
      }`,
    );
  }

  /**
   * Text of token ids; bytes that are no UTF-8 become U+FFFD. An id that the
   * model has but the tokenizer does not is left out, as Hugging Face does.
   * @throws {RangeError} If an id is not a whole number ≥ 0.
   */
  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const stream = this.streamDecoder(options);
    const pieces = Array.from(ids, (id) => stream.push(id));
    return pieces.join("") + stream.end();
  }

  /** One token for people: its text, with `\xE6` for bytes that are no whole character. */
  token(id: number): string {
    const bytes = this.#bytes(id);
    if (bytes.length === 0) return `<no token ${id}>`;
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
        .decode(bytes);
    } catch {
      const hex = (byte: number): string => `\\x${byte.toString(16)}`;
      return Array.from(
        bytes,
        (byte) =>
          byte < 0x80
            ? String.fromCharCode(byte)
            : hex(byte).toUpperCase().replace("X", "x"),
      ).join("");
    }
  }

  /** A decoder for tokens that come one by one. */
  streamDecoder(options: DecodeOptions = {}): StreamDecoder {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const skips = options.skipSpecial ?? false;
    return {
      push: (id) =>
        skips && this.specialIds.has(id)
          ? ""
          : decoder.decode(this.#bytes(id), { stream: true }),
      end: () => decoder.decode(),
    };
  }

  /**
   * The text that the model sees for a conversation; encode it with `addSpecial: false`.
   * `addGenerationPrompt` (default false) opens the assistant's reply.
   * @throws {Error} If the model has no chat template, or the template refuses the conversation.
   */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options: { addGenerationPrompt?: boolean } = {},
  ): string {
    const { chatTemplate, specialTokens, folder } = this.#files;
    if (chatTemplate === null) {
      throw new Error(
        `Cannot chat with "${folder}": expected a chat_template in tokenizer_config.json: got none: use a model tuned for chat, or give a plain prompt`,
      );
    }
    try {
      return new Template(chatTemplate).render({
        ...specialTokens,
        messages,
        add_generation_prompt: options.addGenerationPrompt ?? false,
      });
    } catch (cause) {
      throw new Error(
        `Cannot apply the chat template of "${folder}": ${oneLine(cause)}`,
        { cause },
      );
    }
  }

  /** What a token adds to the text; empty where there is no token. */
  #bytes(id: number): Uint8Array {
    if (Number.isSafeInteger(id) && id >= 0) {
      return this.#files.tokens[id] ?? new Uint8Array(0);
    }
    throw new RangeError(
      `Cannot decode a token: expected an id ≥ 0: got ${id}`,
    );
  }
}

/** Bytes of a character in UTF-8; a lone surrogate is written as U+FFFD, which takes 3 too. */
function utf8Length(codePoint: number): number {
  if (codePoint < 0x80) return 1;
  if (codePoint < 0x800) return 2;
  return codePoint < 0x10000 ? 3 : 4;
}

function oneLine(cause: unknown): string {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return reason.replace(/\s+/g, " ").replace(/\.$/, "");
}
