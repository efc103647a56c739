/**
 * What is left of a conversation when it grows longer than the model's context.
 * @module
 */
import type { ChatMessage, Tokenizer } from "../core/tokenizer.ts";

/** The part of a conversation that fits. */
export interface FittedConversation {
  /** Token ids up to where the reply begins. */
  readonly ids: readonly number[];
  /** The turns that are in them, the user's message last. */
  readonly turns: readonly ChatMessage[];
}

/** Token ids of a conversation, up to where the reply begins. */
export function chatIds(
  tokenizer: Tokenizer,
  system: string | undefined,
  turns: readonly ChatMessage[],
): number[] {
  const messages: readonly ChatMessage[] = system === undefined
    ? turns
    : [{ role: "system", content: system }, ...turns];
  const text = tokenizer.applyChatTemplate(messages, {
    addGenerationPrompt: true,
  });
  return tokenizer.encode(text, { addSpecial: false });
}

/**
 * Token ids of a message, without its beginning if all of it has more than `room` tokens.
 * @throws {RangeError} If there is no room for a part of it either.
 */
export function cutMessageIds(
  tokenizer: Tokenizer,
  system: string | undefined,
  message: string,
  room: number,
): number[] {
  const idsOf = (content: string): number[] =>
    chatIds(tokenizer, system, [{ role: "user", content }]);
  const all = idsOf(message);
  if (all.length <= room) return all;
  const words = tokenizer.encode(message, { addSpecial: false });
  // Where the cut runs through a character or a merge, a few more tokens go.
  for (let n = all.length - room; n < words.length; n++) {
    const ids = idsOf(tokenizer.decode(words.slice(n)));
    if (ids.length <= room) return ids;
  }
  throw new RangeError(
    `Cannot cut a message to ${room} tokens: expected room for a part of it beside the chat template: set --max-tokens lower`,
  );
}

/**
 * Drops the oldest questions with their replies until the rest has at most `room`
 * tokens. The system message always stays. With `truncate` the last question loses its beginning where it must.
 * @param turns Questions and replies in turn, from the first question to the last.
 * @throws {RangeError} If the last question alone has more.
 */
export function fitConversation(
  tokenizer: Tokenizer,
  system: string | undefined,
  turns: readonly ChatMessage[],
  room: number,
  options: { readonly truncate?: boolean } = {},
): FittedConversation {
  for (let first = 0; first < turns.length; first += 2) {
    const rest = turns.slice(first);
    const ids = chatIds(tokenizer, system, rest);
    if (ids.length <= room) return { ids, turns: rest };
    if (rest.length > 1) continue;
    if (options.truncate) {
      const { content } = rest[0]!;
      const cut = cutMessageIds(tokenizer, system, content, room);
      return { ids: cut, turns: rest };
    }
    throw new RangeError(
      `Cannot reply to a message of ${ids.length} tokens: expected at most ${room}, as the rest of the model's context is for the reply: shorten it, set --max-tokens, or cut it with --truncate`,
    );
  }
  throw new RangeError("Cannot reply: expected a message: got none");
}
