import assert from "node:assert/strict";
import type { TextShard } from "../../core/text.ts";
import { parseShard, shardOf } from "../../tasks/shard.ts";

function shardIn(
  variables: Readonly<Record<string, string>>,
  flag?: string,
): TextShard | undefined {
  return shardOf(flag, (name) => variables[name]);
}

function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    assert(error instanceof RangeError);
    return error.message;
  }
  throw new Error("nothing was thrown");
}

Deno.test("--shard goes before the environment, and nothing said means all of the work", () => {
  const slurm = { SLURM_ARRAY_TASK_ID: "1", SLURM_ARRAY_TASK_COUNT: "2" };
  assert.deepEqual(shardIn(slurm, "3/64"), { index: 3, count: 64 });
  assert.deepEqual(shardIn({}, "0/1"), { index: 0, count: 1 });
  assert.equal(shardIn({}), undefined);
  assert.equal(shardIn({ SLURM_ARRAY_TASK_ID: "" }), undefined);
});

Deno.test("a Slurm array's task counts from the array's first number", () => {
  const array = {
    SLURM_ARRAY_TASK_ID: "12",
    SLURM_ARRAY_TASK_COUNT: "4",
    SLURM_ARRAY_TASK_MIN: "10",
    SLURM_ARRAY_TASK_MAX: "13",
  };
  assert.deepEqual(shardIn(array), { index: 2, count: 4 });
  assert.deepEqual(
    shardIn({ SLURM_ARRAY_TASK_ID: "3", SLURM_ARRAY_TASK_COUNT: "4" }),
    { index: 3, count: 4 },
  );
});

Deno.test("a Slurm array with gaps is refused: its tasks do not know their place", () => {
  const gaps = {
    SLURM_ARRAY_TASK_ID: "2",
    SLURM_ARRAY_TASK_COUNT: "3",
    SLURM_ARRAY_TASK_MIN: "1",
    SLURM_ARRAY_TASK_MAX: "5",
  };
  assert.match(refusal(() => shardIn(gaps)), /leaves out no number.*--shard/);
});

Deno.test("a Kubernetes Indexed Job's pod takes its index, and the count beside it", () => {
  assert.deepEqual(
    shardIn({ JOB_COMPLETION_INDEX: "5", OCS_SHARD_COUNT: "8" }),
    { index: 5, count: 8 },
  );
});

for (
  const typed of [
    "3/2",
    "2/2",
    "a/b",
    "1",
    "1/",
    "/4",
    "-1/4",
    "1.5/4",
    "0/0",
    "0/100001",
    "",
    "1/4 ",
    "0x1/4",
    "1/99999999999999999999",
  ]
) {
  Deno.test(`--shard ${JSON.stringify(typed)} is refused in one line that repeats it`, () => {
    const message = refusal(() => parseShard(typed));
    assert(message.includes(JSON.stringify(typed)), message);
    assert(!message.includes("\n"));
  });
}

for (
  const [name, variables] of Object.entries({
    "an id without a count": { SLURM_ARRAY_TASK_ID: "1" },
    "a count without an id": { SLURM_ARRAY_TASK_COUNT: "2" },
    "an id below the array's first": {
      SLURM_ARRAY_TASK_ID: "1",
      SLURM_ARRAY_TASK_COUNT: "2",
      SLURM_ARRAY_TASK_MIN: "2",
    },
    "an id that is no number": {
      SLURM_ARRAY_TASK_ID: "one",
      SLURM_ARRAY_TASK_COUNT: "2",
    },
    "an index without a count": { JOB_COMPLETION_INDEX: "1" },
    "a count without an index": { OCS_SHARD_COUNT: "2" },
    "an index past the count": {
      JOB_COMPLETION_INDEX: "2",
      OCS_SHARD_COUNT: "2",
    },
  })
) {
  Deno.test(`${name} in the environment is refused`, () => {
    const message = refusal(() => shardIn(variables));
    assert.match(message, /^Cannot choose a shard: expected /);
  });
}
