/** A chat session in this process: what happens while a reply comes. */
import assert from "node:assert/strict";
import { parseFlags } from "../../core/flags.ts";
import { ChatSession } from "../../tasks/chat_session.ts";
import type { TaskContext } from "../../tasks/cli.ts";
import { Progress } from "../../tasks/progress.ts";
import { STEERING_FLAGS, type SteeringFlags } from "../../tasks/steering.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { openTinyModel } from "../steer/embedded.ts";

/** A session with the embedded model, and what it shows. */
async function openSession(...argv: string[]) {
  const flags = parseFlags(STEERING_FLAGS, argv, {
    name: "chat",
    description: "",
  }) as SteeringFlags;
  const gpu = await testGpu();
  const context: TaskContext = {
    signal: new AbortController().signal,
    quiet: true,
    openGpu: () => Promise.resolve(gpu),
    plan: () => {},
    progress: (options) => new Progress({ ...options, quiet: true }),
    note: () => {},
  };
  const shown: string[] = [];
  const notes: string[] = [];
  const listeners: (() => void)[] = [];
  const session = await ChatSession.open(flags, await openTinyModel(), {
    write: (text) => {
      shown.push(text);
      for (const listener of listeners.splice(0)) listener();
    },
    note: (text) => notes.push(text),
  }, context);
  return { session, shown, notes, listeners };
}

const QUESTION = "Tell me about your day.";
const LONG = ["--greedy", "--max-tokens", "100"];

Deno.test("ChatSession steers a reply from its next token on when /steer comes in the middle", async () => {
  // So weak that it changes nothing; what it takes to steer is on the GPU.
  const weak = [...LONG, "--steer", "dragon=0.001x:add"];
  const plain = await openSession(...weak);
  using _plain = plain.session;
  await plain.session.take(QUESTION);
  const unsteered = plain.shown.join("");

  const chat = await openSession(...weak);
  using _chat = chat.session;
  const { session, shown, listeners } = chat;
  let before = "";
  let steering: Promise<void> | undefined;
  listeners.push(() => {
    before = shown.join("");
    assert.ok(session.isReplying);
    steering = session.take("/steer dragon=3x");
  });
  await session.take(QUESTION);
  await steering;
  assert.ok(before.length > 0 && before.length < unsteered.length);
  const said = shown.filter((text) => !text.startsWith("steered by")).join("");
  assert.ok(unsteered.startsWith(before) && said.startsWith(before));
  assert.notEqual(said, unsteered);
  assert.match(said, /dragon/i, "the rest is about what it is steered to");
  assert.doesNotMatch(unsteered, /dragon/i);
});

Deno.test("ChatSession goes back to the unsteered model when /clear comes in the middle", async () => {
  const chat = await openSession(...LONG, "--steer", "dragon=3x");
  using _chat = chat.session;
  const { session, shown, listeners, notes } = chat;
  let clearing: Promise<void> | undefined;
  listeners.push(() => clearing = session.take("/clear"));
  await session.take(QUESTION);
  await clearing;
  assert.ok(shown.includes("not steered\n"));
  const first = shown.length;
  await session.take("/reset");
  await session.take(QUESTION);
  assert.ok(shown.length > first && notes.length === 0);
});

Deno.test("ChatSession takes no command that touches the conversation while a reply comes", async () => {
  const chat = await openSession(...LONG);
  using _chat = chat.session;
  const { session, listeners, notes } = chat;
  const taken: Promise<void>[] = [];
  listeners.push(() => {
    for (const line of ["/reset", "/find dragon", "/quit", "/nothing"]) {
      taken.push(session.take(line));
    }
    taken.push(session.take("/help"));
  });
  await session.take(QUESTION);
  await Promise.all(taken);
  assert.equal(notes.length, 4);
  for (const note of notes.slice(0, 3)) {
    assert.match(note, /^error: Cannot run \/\w+ while a reply comes: /);
  }
  assert.ok(!session.isOver && !session.isReplying);
});

Deno.test("ChatSession ends a reply before a stop text, and remembers it so", async () => {
  const plain = await openSession(...LONG);
  using _plain = plain.session;
  await plain.session.take(QUESTION);
  const whole = plain.shown.join("").trimEnd();
  const stop = whole.slice(10, 14);
  const chat = await openSession(...LONG, "--stop", stop);
  using _chat = chat.session;
  await chat.session.take(QUESTION);
  assert.equal(
    chat.shown.join(""),
    `${whole.slice(0, whole.indexOf(stop))}\n`,
  );
});

Deno.test("ChatSession cuts the beginning off a message that is too long when it is told to", async () => {
  const long = `${"Once there was a dragon. ".repeat(400)}${QUESTION}`;
  const refused = await openSession(...LONG);
  using _refused = refused.session;
  await refused.session.take(long);
  assert.match(
    refused.notes.join(),
    /^error: Cannot reply to a message of \d+ tokens: expected at most \d+, .*--truncate$/,
  );
  const chat = await openSession(...LONG, "--truncate");
  using _chat = chat.session;
  await chat.session.take(long);
  assert.deepEqual(chat.notes, []);
  assert.ok(chat.shown.join("").trim().length > 0);
});
