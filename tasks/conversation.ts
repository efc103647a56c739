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
 * Drops the oldest questions with their replies until the rest has at most `room`
 * tokens. The system message always stays.
 * @param turns Questions and replies in turn, from the first question to the last.
 * @throws {RangeError} If the last question alone has more.
 */
export function fitConversation(
  tokenizer: Tokenizer,
  system: string | undefined,
  turns: readonly ChatMessage[],
  room: number,
): FittedConversation {
  for (let first = 0; first < turns.length; first += 2) {
    const rest = turns.slice(first);
    const ids = chatIds(tokenizer, system, rest);
    if (ids.length <= room) return { ids, turns: rest };
    if (rest.length > 1) continue;
    throw new RangeError(
      `Cannot reply to a message of ${ids.length} tokens: expected at most ${room}, as the rest of the model's context is for the reply: shorten it or set --max-tokens`,
    );
  }
  throw new RangeError("Cannot reply: expected a message: got none");
}
