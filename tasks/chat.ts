/**
 * A chat with a model that is steered meanwhile: `./ocs chat`, then `/steer baseball=2x`.
 * @module
 */
// deno-lint-ignore-file no-console
import { ChatSession } from "./chat_session.ts";
import { openModel, runTask } from "./cli.ts";
import { Interrupts } from "./interrupts.ts";
import { shortened } from "./replying_model.ts";
import { STEERING_FLAGS, write } from "./steering.ts";

if (import.meta.main) {
  await runTask({
    name: "chat",
    description:
      "Chats with a model while its features are turned up or down; /help lists the commands.",
    flags: STEERING_FLAGS,
    ownsInterrupt: true,
  }, async (flags, context) => {
    const model = await openModel(flags.model, flags.quantize);
    const folder = { ...model, config: shortened(model, flags.context) };
    const output = { write, note: (text: string) => console.error(text) };
    using session = await ChatSession.open(flags, folder, output, context);
    context.note("say something; /help lists the commands");
    using interrupts = new Interrupts(() => session.stopReply());
    const isTerminal = Deno.stdin.isTerminal();
    const ask = (): void =>
      isTerminal && !session.isOver ? write("> ") : undefined;
    ask();
    const failure = new AbortController();
    const signal = AbortSignal.any([context.signal, failure.signal]);
    let reply = Promise.resolve();
    for await (const line of inputLines(signal)) {
      interrupts.disarm();
      const isCommand = line.trim().startsWith("/");
      // A person may steer a reply that is coming; the lines of a file are taken one after the other.
      if (!isTerminal || !isCommand) await reply;
      if (!isCommand) {
        reply = session.take(line).then(ask);
        reply.catch((error) => failure.abort(error));
        continue;
      }
      await session.take(line);
      if (session.isOver) break;
      if (!session.isReplying) ask();
    }
    await reply;
  });
}

/** Lines of standard input, as they are typed. */
async function* inputLines(signal: AbortSignal): AsyncGenerator<string> {
  const text = Deno.stdin.readable.pipeThrough(new TextDecoderStream(), {
    signal,
  });
  let begun = "";
  for await (const piece of text) {
    const lines = (begun + piece).split("\n");
    begun = lines.pop()!;
    yield* lines;
  }
  if (begun !== "") yield begun;
}
