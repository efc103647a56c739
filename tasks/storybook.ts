/**
 * Writes the storybook corpus as JSON lines: `./ocs storybook --docs 3000 --seed 101 --out corpus.jsonl`.
 * @module
 */
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { writeAtomic } from "../core/files.ts";
import { storybook, type StoryDoc } from "../core/storybook.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { runTask, type TaskContext, type TaskSpec, userPath } from "./cli.ts";

const LINES_PER_CHUNK = 1000;

/** The first n documents as UTF-8, a thousand lines at a time. */
async function* jsonLines(
  documents: Iterator<StoryDoc>,
  n: number,
  onProgress: (done: number) => void,
): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder();
  for (let done = 0; done < n;) {
    const lines: string[] = [];
    for (const end = Math.min(n, done + LINES_PER_CHUNK); done < end; done++) {
      lines.push(`${JSON.stringify(documents.next().value)}\n`);
    }
    yield encoder.encode(lines.join(""));
    // A turn of the event loop, so that signals are heard.
    await new Promise((resolve) => setTimeout(resolve));
    onProgress(done);
  }
}

const FLAGS = {
  docs: {
    default: 3000,
    integer: true,
    min: 1,
    unit: "documents",
    help: "how many",
  },
  seed: {
    default: 101,
    integer: true,
    min: 0,
    max: 2 ** 32 - 1,
    help: "which storybook; the embedded model was trained on 7",
  },
  out: { type: "string", required: true, help: "file to write, .jsonl" },
} as const satisfies FlagTable;

/** Writes what the flags say. */
export async function storybookTask(
  { docs, seed, out }: ConfigOf<typeof FLAGS>,
  { progress, signal }: TaskContext,
): Promise<void> {
  const path = userPath(out);
  if (!path.endsWith(".jsonl")) {
    throw new TypeError(
      `Cannot write "${path}": expected a name that ends in .jsonl, by which other tasks know it`,
    );
  }
  if (existsSync(path)) {
    throw new Error(
      `Cannot write "${path}": expected a new file: got one that is there: choose another name with --out, or remove it`,
    );
  }
  using bar = progress({
    label: "storybook",
    unit: "documents",
    total: docs,
  });
  await Deno.mkdir(dirname(path), { recursive: true });
  await writeAtomic(
    path,
    jsonLines(storybook(seed), docs, (done) => {
      signal.throwIfAborted();
      bar.update(done);
    }),
  );
  bar.end();
}

/** The task, for the command line and for tasks that have it as a stage. */
export const STORYBOOK: TaskSpec<typeof FLAGS> = {
  name: "storybook",
  description:
    "Writes the storybook corpus: a JSON line for each document, with its text, its kind and what its parts are about.",
  afterInterrupt: "nothing was written",
  flags: FLAGS,
};

if (import.meta.main) await runTask(STORYBOOK, storybookTask);
