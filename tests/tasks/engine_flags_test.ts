import { deepEqual, equal, throws } from "node:assert/strict";
import { isShared, type SharedFlags } from "../../tasks/engine_flags.ts";
import { jobsFolder } from "../../tasks/shared_work.ts";
import { flagWords } from "../../tasks/task_process.ts";

const ALONE: SharedFlags = {
  engine: "local",
  tasks: undefined,
  jobs: undefined,
  gpus: undefined,
  sbatch: [],
  dry_run: false,
  image: undefined,
  volume: [],
  secret: [],
  limit: [],
  shard: undefined,
};

Deno.test("isShared() is whether others are to do the work", () => {
  equal(isShared(ALONE), false);
  equal(isShared({ ...ALONE, shard: "0/2" }), false);
  equal(isShared({ ...ALONE, tasks: 1 }), true);
  equal(isShared({ ...ALONE, gpus: "0,1" }), true);
  equal(isShared({ ...ALONE, jobs: 2 }), true);
  equal(isShared({ ...ALONE, engine: "slurm", tasks: 4 }), true);
});

for (
  const [what, flags, message] of [
    [
      "a share, and all of them",
      { shard: "0/2", tasks: 2 },
      /leave out --shard 0\/2$/,
    ],
    [
      "a cluster without a number of tasks",
      { engine: "slurm" },
      /expected --tasks NUMBER with --engine slurm: got nothing$/,
    ],
    [
      "GPUs of this machine for a cluster",
      { engine: "kubernetes", tasks: 2, gpus: "0,1" },
      /expected no --gpus with --engine kubernetes/,
    ],
    [
      "a dry run that would be none",
      { dry_run: true },
      /expected --dry-run with --engine slurm only: got --engine local$/,
    ],
    [
      "options of sbatch for another engine",
      { engine: "kubernetes", tasks: 2, sbatch: ["gres=gpu:1"] },
      /expected --sbatch with --engine slurm only: got --engine kubernetes$/,
    ],
  ] as const
) {
  Deno.test(`isShared() refuses ${what}`, () => {
    throws(() => isShared({ ...ALONE, ...flags }), message);
  });
}

Deno.test("flagWords() types values as a person would, and leaves out what is left open or to others", () => {
  const table = {
    text: { type: "string", help: "" },
    d_sae: { default: 8, help: "" },
    lr: { default: 1e-7, help: "" },
    pack: { default: true, help: "" },
    separator: { default: false, help: "" },
    sbatch: { type: "strings", help: "" },
    out: { type: "string", help: "" },
    gpu: { type: "string", help: "" },
  } as const;
  const values = {
    text: "--a b",
    d_sae: 64,
    lr: 1e-7,
    pack: false,
    separator: false,
    sbatch: ["a=b", "c"],
    out: undefined,
    gpu: "0",
  };
  deepEqual(flagWords(table, values, ["gpu"]), [
    "--text=--a b",
    "--d-sae=64",
    "--lr=1e-7",
    "--no-pack",
    "--sbatch=a=b",
    "--sbatch=c",
  ]);
  deepEqual(
    flagWords(table, { pack: true, separator: true }),
    ["--pack", "--separator"],
  );
});

Deno.test("jobsFolder() lies beside a folder of this machine, and where one types for an object store", () => {
  const cwd = Deno.env.get("INIT_CWD") ?? Deno.cwd();
  equal(jobsFolder("/data/residuals"), "/data/residuals.jobs");
  equal(jobsFolder("out/residuals"), `${cwd}/out/residuals.jobs`);
  equal(jobsFolder("s3://bucket/a/residuals"), `${cwd}/residuals.jobs`);
});
