/**
 * A conversation with a model that is steered meanwhile.
 * @module
 */
import type { ModelFolder } from "../core/model_folder.ts";
import type { Olmo2 } from "../core/olmo2.ts";
import { nearest } from "../core/suggest.ts";
import type { ChatMessage } from "../core/tokenizer.ts";
import { Decoder } from "../steer/decoder.ts";
import { checkReply } from "../steer/generate.ts";
import type { Intervention, SteeringBank } from "../steer/interventions.ts";
import type { Reply } from "../steer/reply.ts";
import { ReplyText } from "../steer/reply_text.ts";
import { fitConversation } from "./conversation.ts";
import { samplingOf } from "./sampling_flags.ts";
import { loadModel } from "./replying_model.ts";
import {
  checkReplyLength,
  Steering,
  type SteeringFlags,
  type SteeringSae,
} from "./steering.ts";
import { FeatureFinder } from "./chat_find.ts";
import type { TaskContext } from "./cli.ts";

/** Where a conversation is shown. */
export interface ChatOutput {
  /** Shows a piece of a reply, or an answer to a command. */
  write(text: string): void;
  /** Shows one line that is neither, such as an error. */
  note(text: string): void;
}

/** One `/command`. */
interface Command {
  readonly usage: string;
  readonly help: string;
  /** Whether it can be given while a reply comes. */
  readonly isQuick: boolean;
  readonly run: (argument: string) => void | Promise<void>;
}

/** A reply that is coming. */
interface ComingReply {
  readonly decoder: Decoder;
  readonly reply: Reply;
}

/** A conversation; owns the model. */
export class ChatSession implements Disposable {
  readonly #flags: SteeringFlags;
  readonly #folder: ModelFolder;
  readonly #model: Olmo2;
  readonly #output: ChatOutput;
  readonly #commands: ReadonlyMap<string, Command>;
  readonly #owned = new DisposableStack();
  #steering: Steering | undefined;
  #bank: SteeringBank | undefined;
  readonly #finders = new Map<SteeringSae, FeatureFinder>();
  #interventions: readonly Intervention[] = [];
  #turns: readonly ChatMessage[] = [];
  #nReplies = 0;
  #coming: ComingReply | undefined;
  #isOver = false;

  private constructor(
    flags: SteeringFlags,
    folder: ModelFolder,
    model: Olmo2,
    output: ChatOutput,
  ) {
    this.#flags = flags;
    this.#folder = folder;
    this.#model = this.#owned.use(model);
    this.#output = output;
    this.#commands = this.#commandTable();
  }

  /**
   * Checks the flags and loads the model.
   * @throws {Error} If sampling is out of range, the model or the SAE is damaged, or they do not fit.
   */
  static async open(
    flags: SteeringFlags,
    folder: ModelFolder,
    output: ChatOutput,
    context: TaskContext,
  ): Promise<ChatSession> {
    const { context_length } = folder.config;
    checkReplyLength(flags, folder);
    samplingOf(flags, folder); // throws before anything is loaded
    const isSteered = flags.steer.length > 0 || flags.sae.length > 0;
    const steering = isSteered ? await Steering.open(flags, folder) : undefined;
    const interventions = flags.steer.map((text) => steering!.parse(text));
    await steering?.check(interventions);
    const model = await loadModel(
      flags,
      folder,
      { tokens: context_length },
      context,
    );
    const session = new ChatSession(flags, folder, model, output);
    session.#steering = steering;
    session.#interventions = interventions;
    return session;
  }

  /** Whether the conversation was ended by a command. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Whether a reply is under way; then only commands can be taken, those that do not touch the conversation. */
  get isReplying(): boolean {
    return this.#coming !== undefined;
  }

  /** Stops the reply that is under way; whether there was one. */
  stopReply(): boolean {
    if (!this.#coming || this.#coming.reply.end !== undefined) return false;
    this.#coming.reply.cancel();
    return true;
  }

  /** Takes a line of the user: a message, or a command. What is wrong with it is noted, and the conversation goes on. */
  async take(line: string): Promise<void> {
    const text = line.trim();
    if (text === "") return;
    try {
      await (text.startsWith("/") ? this.#command(text) : this.#say(text));
    } catch (error) {
      this.#model.gpu.throwIfFailed();
      const message = error instanceof Error ? error.message : String(error);
      this.#output.note(`error: ${message.replace(/\s*\n\s*/g, " ")}`);
    }
  }

  async #command(text: string): Promise<void> {
    const [, name = "", argument = ""] = /^\/(\S*)\s*(.*)$/s.exec(text) ?? [];
    const command = this.#commands.get(name);
    if (command && this.isReplying && !command.isQuick) {
      throw new RangeError(
        `Cannot run /${name} while a reply comes: expected /steer or /clear: wait for it, or stop it with Ctrl-C`,
      );
    }
    if (command) return await command.run(argument);
    const [near] = nearest(name, this.#commands.keys(), 1);
    throw new RangeError(
      `Cannot run /${name}: expected a command: ${
        near === undefined
          ? "/help lists them"
          : `did you mean /${near}? /help lists them`
      }`,
    );
  }

  #commandTable(): ReadonlyMap<string, Command> {
    return new Map<string, Command>([
      ["steer", {
        isQuick: true,
        usage: "/steer [758=5x]",
        help:
          "steers by one more feature, by number or label, a reply that is coming too; alone it lists them",
        run: (argument) => this.#steer(argument),
      }],
      ["clear", {
        isQuick: true,
        usage: "/clear",
        help: "ends all steering",
        run: async () => {
          this.#interventions = [];
          await this.#steerComing();
          this.#answer("not steered");
        },
      }],
      ["find", {
        isQuick: false,
        usage: "/find WORD",
        help: "lists the features that fire on a word",
        run: (argument) => this.#find(argument),
      }],
      ["reset", {
        isQuick: false,
        usage: "/reset",
        help: "forgets the conversation; the steering stays",
        run: () => {
          this.#turns = [];
          this.#answer("the conversation is forgotten");
        },
      }],
      ["help", {
        isQuick: true,
        usage: "/help",
        help: "lists the commands",
        run: () => this.#answer(this.#helpText()),
      }],
      ["quit", {
        isQuick: false,
        usage: "/quit",
        help: "ends the chat, as the end of the input does",
        run: () => {
          this.#isOver = true;
        },
      }],
    ]);
  }

  #helpText(): string {
    const commands = [...this.#commands.values()];
    const width = Math.max(...commands.map(({ usage }) => usage.length));
    return commands.map(({ usage, help }) => `${usage.padEnd(width)}  ${help}`)
      .join("\n");
  }

  async #steer(text: string): Promise<void> {
    if (text !== "") {
      this.#steering ??= await Steering.open(this.#flags, this.#folder);
      const steering = this.#steering;
      const added = steering.parse(text);
      const { layer } = steering.placeOf(added);
      const interventions = [
        ...this.#interventions.filter((other) =>
          other.feature !== added.feature ||
          steering.placeOf(other).layer !== layer
        ),
        added,
      ];
      await steering.check(interventions);
      this.#interventions = interventions;
      await this.#steerComing();
    }
    if (this.#interventions.length === 0) return this.#answer("not steered");
    const steering = this.#steering!;
    this.#answer(
      `steered by ${steering.describe(this.#interventions)} at ${
        steering.describePlaces(this.#interventions)
      }`,
    );
  }

  /** Steers the reply that is coming as things are now, from its next token on. */
  async #steerComing(): Promise<void> {
    if (!this.#coming) return;
    const bank = await this.#loadedBank();
    if (bank) this.#coming.decoder.steering = bank;
    this.#coming.reply.steer(bank ? 0 : undefined);
  }

  async #find(words: string): Promise<void> {
    this.#steering ??= await Steering.open(this.#flags, this.#folder);
    for (const sae of this.#steering.saes) {
      const finder = this.#finders.get(sae) ?? this.#owned.use(
        await FeatureFinder.open(this.#folder, this.#model, sae),
      );
      this.#finders.set(sae, finder);
      if (this.#steering.saes.length > 1) this.#answer(`${sae.hookPoint}:`);
      this.#answer(await finder.find(words));
    }
  }

  /** Replies to a message, and remembers both. */
  async #say(message: string): Promise<void> {
    const { tokenizer, config } = this.#folder;
    const turns: ChatMessage[] = [
      ...this.#turns,
      { role: "user", content: message },
    ];
    const { max_tokens, system, truncate } = this.#flags;
    const room = config.context_length - max_tokens;
    const fitted = fitConversation(tokenizer, system, turns, room, {
      truncate,
    });
    const nDropped = turns.length - fitted.turns.length;
    if (nDropped > 0) {
      this.#output.note(
        `the ${nDropped} oldest messages no longer fit the model's context of ${config.context_length} tokens and are forgotten`,
      );
    }
    const content = await this.#generate(fitted.ids);
    this.#turns = [...fitted.turns, { role: "assistant", content }];
  }

  /** Generates a reply and writes it as it comes. */
  async #generate(prompt: readonly number[]): Promise<string> {
    const { tokenizer } = this.#folder;
    const bank = await this.#loadedBank();
    const { seed, ...sampling } = samplingOf(this.#flags, this.#folder);
    const { positions, max_tokens, stop } = this.#flags;
    const text = new ReplyText(
      tokenizer.streamDecoder({ skipSpecial: true }),
      stop,
    );
    let said = "";
    const show = (piece: string): void => {
      said += piece;
      this.#output.write(piece);
    };
    using decoder = new Decoder(this.#model, {
      maxRows: 1,
      prefillTokens: prompt.length,
      ...(bank && { steering: bank }),
    });
    const reply = decoder.add({
      prompt,
      // Each reply has random numbers of its own.
      sampling: { ...sampling, seed: (seed + this.#nReplies++) % 2 ** 32 },
      maxNewTokens: max_tokens,
      positions,
      stop: (id) => {
        show(text.push(id));
        return text.isStopped;
      },
      ...(bank && { steeringSet: 0 }),
    });
    this.#coming = { decoder, reply };
    try {
      while (!decoder.isIdle) await decoder.turn();
      checkReply(reply);
    } finally {
      this.#coming = undefined;
      show(text.end());
      this.#output.write("\n");
    }
    if (reply.end === "cancelled") this.#output.note("stopped");
    return said;
  }

  /** The bank with what steers now as its set 0; undefined where nothing does. */
  async #loadedBank(): Promise<SteeringBank | undefined> {
    if (this.#interventions.length === 0) return undefined;
    this.#bank ??= this.#owned.use(
      await this.#steering!.load(this.#model.gpu, []),
    );
    await this.#bank.replace(0, this.#interventions);
    return this.#bank;
  }

  #answer(text: string): void {
    this.#output.write(`${text}\n`);
  }

  /** Frees the model. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
