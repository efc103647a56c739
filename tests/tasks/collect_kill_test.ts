/** Runs of `./ocs collect` that are killed at moments that nobody chose. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { join } from "node:path";
import { runTask, scratchFolder, startTask } from "./run_task.ts";

const KILLS = 3;
/** Small shards and passes, so that a few documents make many of both. */
const WORDS = [
  "--text=storybook:101:250",
  "--context=64",
  "--hook=resid_post[0]",
  "--shard-rows=400",
  "--pass-tokens=256",
  "--quiet",
] as const;

/** Names of everything in a folder that is there. */
function namesOf(folder: string): string[] {
  try {
    return Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
  } catch {
    return [];
  }
}

/** Starts the run, and kills it some time after it has begun to write; whether it was still running. */
async function killed(cwd: string, ms: number): Promise<boolean> {
  const shards = (): number =>
    namesOf(join(cwd, "killed")).filter((name) => name.endsWith(".parquet"))
      .length;
  const before = shards();
  const child = startTask(["collect", ...WORDS, "--out=killed"], { cwd });
  const output = child.output();
  let isOver = false;
  output.then(() => isOver = true);
  const wait = (ms: number): Promise<void> =>
    new Promise((resolve) => setTimeout(resolve, ms));
  while (!isOver && shards() === before) await wait(1);
  await wait(ms);
  if (!isOver) child.kill("SIGKILL");
  const { code, stderr } = await output;
  ok(code === 137 || code === 0, new TextDecoder().decode(stderr));
  return code === 137;
}

Deno.test("collect goes on after it is killed at any moment, and ends with the bytes of a run that was left alone", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const finish = async (out: string): Promise<void> => {
    const run = await runTask(["collect", ...WORDS, `--out=${out}`], { cwd });
    equal(run.code, 0, run.stderr);
  };
  await finish("straight");
  const delays: number[] = [];
  for (let kill = 0; kill < KILLS; kill++) {
    delays.push(Math.floor(100 * Math.random()));
    if (!await killed(cwd, delays.at(-1)!)) break;
  }
  const label = `killed after ${delays.join(", ")} ms`;
  ok(delays.length > 1, "the run ended before it was killed twice");
  await finish("killed");
  // What the kills left half-written is gone, and so are their locks.
  deepEqual(
    namesOf(join(cwd, "killed")),
    namesOf(join(cwd, "straight")),
    label,
  );
  for (const name of namesOf(join(cwd, "straight"))) {
    const [got, want] = ["killed", "straight"].map((out) =>
      Deno.readFileSync(join(cwd, out, name))
    );
    deepEqual(got, want, `${name}, ${label}`);
  }
});
