import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { runInShell } from "../../tasks/shell.ts";
import { arrayScript, mergeScript, type SlurmWork } from "../../tasks/slurm.ts";
import { runTask, scratchFolder } from "./run_task.ts";
import { collectSmall } from "./small_sae.ts";

/**
 * Does what Slurm does, at once and in this process's place: runs a script, for each number of
 * its array if it has one, and prints the job's number. Its arguments are written down.
 */
const SBATCH = `#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
for script; do :; done
numbers=$(sed -n 's/^#SBATCH --array=\\([0-9,-]*\\).*/\\1/p' "$script" | tr ',' ' ')
for range in \${numbers:-none}; do
  for n in $(seq "\${range%-*}" "\${range#*-}" 2>/dev/null || echo none); do
    SLURM_ARRAY_TASK_ID=$n sh "$script" >> "$here/output" 2>&1
  done
done
echo 17
`;

/** A PATH on which sbatch is the script above; or is not, without one. */
function pathWith(folder: string, sbatch?: string): string {
  const bin = join(folder, "bin");
  Deno.mkdirSync(bin);
  if (sbatch !== undefined) {
    Deno.writeTextFileSync(join(bin, "sbatch"), sbatch, { mode: 0o755 });
  }
  return `${bin}:${Deno.env.get("PATH")}`;
}

const WORDS = [
  "--residuals=residuals",
  "--d-sae=64",
  "--batch=64",
  "--steps=5",
  "--hold-out=200",
  "--out=sweep",
  "--grid=lambda=0.5,1,2",
  "--engine=slurm",
] as const;

const WORK: SlurmWork = {
  name: "collect",
  folder: "/data/50% of it.jobs",
  cwd: "/home/me/my work",
  tasks: [0, 1, 2, 5, 7, 8],
  jobs: 4,
  options: ["gres=gpu:1", "--time=12:00:00", "partition=a100", 'comment=a "b"'],
  task: ["collect", "--text=it's", "--shard=#/64"],
  merge: ["data", "merge", "my out"],
  mergeAfter: "afterok",
};

Deno.test("arrayScript() is an array of what is left, with the user's options, stopped by SIGTERM in time", () => {
  const script = arrayScript(WORK);
  match(script, /^#!\/bin\/sh\n#SBATCH /);
  for (
    const option of [
      "array=0-2,5,7-8%4",
      "requeue",
      "open-mode=append",
      "signal=B:TERM@120",
      "gres=gpu:1",
      "time=12:00:00",
      'comment="a \\"b\\""',
      'output="/data/50%% of it.jobs/slurm-%A_%a.log"',
    ]
  ) ok(script.includes(`\n#SBATCH --${option}\n`), `${option} in ${script}`);
  match(
    script,
    /\ncd '\/home\/me\/my work' \|\| exit\nexec \S+\/ocs collect '--text=it'"'"'s' --shard="\$SLURM_ARRAY_TASK_ID"\/64\n$/,
  );
  const all = arrayScript({ ...WORK, jobs: undefined });
  ok(all.includes("\n#SBATCH --array=0-2,5,7-8\n"));
});

Deno.test("mergeScript() runs where the array may, without the resources of its jobs", () => {
  const script = mergeScript(WORK);
  match(script, /\nexec \S+\/ocs data merge 'my out'\n$/);
  ok(script.includes("\n#SBATCH --partition=a100\n"));
  ok(script.includes("\n#SBATCH --time=12:00:00\n"));
  ok(!script.includes("gres"));
  // Only words of the array's jobs have their number in them.
  const odd = mergeScript({ ...WORK, merge: ["data", "merge", "run #1"] });
  match(odd, / data merge 'run #1'\n$/);
});

Deno.test("an option of sbatch with a line break is refused: a script would take the rest for a command", () => {
  throws(
    () => arrayScript({ ...WORK, options: ["comment=a\nrm -r x"] }),
    /^TypeError: Cannot write a script for Slurm: .* in one line: got "comment=a\\nrm -r x"$/,
  );
});

Deno.test("runInShell() gives a program the words of a command as they are", async () => {
  const words = ["it's", "a  b", "$HOME", '"', "*", "~", "\\", "#1"];
  const { code, stdout } = await runInShell(["echo", ...words]);
  deepEqual([code, stdout], [0, `${words.join(" ")}\n`]);
});

Deno.test("sweep --engine slurm submits the grid and its tables, and then only what is left", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  const env = { PATH: pathWith(cwd, SBATCH) };
  const dry = await runTask(["sweep", ...WORDS, "--dry-run"], { cwd, env });
  equal(dry.code, 0, dry.stderr);
  match(
    dry.stdout,
    /^sbatch .*\/array\.sbatch\nsbatch --dependency=afterany:ARRAY --kill-on-invalid-dep=yes /,
  );
  ok(!existsSync(join(cwd, "bin", "calls")));
  const run = await runTask(["sweep", ...WORDS, "--jobs=2"], { cwd, env });
  equal(run.code, 0, run.stderr);
  match(run.stdout, /^submitted 3 jobs as array 17, and behind it job 17, /);
  const calls = Deno.readTextFileSync(join(cwd, "bin", "calls"));
  match(
    calls,
    /^--parsable .*\/array\.sbatch\n--parsable --dependency=afterany:17 --kill-on-invalid-dep=yes .*\/merge\.sbatch\n$/,
  );
  const output = Deno.readTextFileSync(join(cwd, "bin", "output"));
  match(output, /^lambda=0\.5: FVU /m);
  match(output, /^ +2 +\d\.\d+ .*\n\ntables and plots: /m);
  const results = join(cwd, "sweep", "results.json");
  const statuses = JSON.parse(Deno.readTextFileSync(results))
    .map(({ status }: { status: string }) => status);
  equal(statuses.join(" "), "complete complete complete");
  // The last of its runs is not there any more.
  Deno.removeSync(join(cwd, "sweep", "lambda=2"), { recursive: true });
  await runTask(["sweep", ...WORDS, "--dry-run"], { cwd, env });
  match(
    Deno.readTextFileSync(join(cwd, "sweep", "array.sbatch")),
    /^#SBATCH --array=2$/m,
  );
});

Deno.test("sweep --engine slurm says what sbatch says when it refuses", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const refusal =
    `#!/bin/sh\necho "sbatch: error: invalid partition" >&2\nexit 1\n`;
  const env = { PATH: pathWith(cwd, refusal) };
  const run = await runTask(["sweep", ...WORDS], { cwd, env });
  equal(run.code, 1);
  match(
    run.stderr,
    /^error: Cannot submit to Slurm: .* got sbatch: error: invalid partition: run it where sbatch is installed[^;]*$/m,
  );
  // The second time that it is asked, with the array in the queue.
  const half = refusal.replace("\n", "\n[ $# -eq 2 ] && { echo 17; exit; }\n");
  Deno.writeTextFileSync(join(cwd, "bin", "sbatch"), half);
  const second = await runTask(["sweep", ...WORDS], { cwd, env });
  equal(second.code, 1);
  match(
    second.stderr,
    /^error: Cannot submit .* invalid partition: .*; array 17 is submitted already: scancel 17, or when it has ended run \.\/ocs sweep --merge=\S+$/m,
  );
});
