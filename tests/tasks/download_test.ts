/** Runs of `./ocs download`, as a person runs it, against a hub on this machine. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  type ByteRange,
  countBytes,
  parseRanges,
} from "../../core/hub_ranges.ts";
import {
  FakeHub,
  hashOf,
  noise,
  sha256,
  slowAnswer,
  TOKEN,
} from "../core/hub_server.ts";
import { makeSae, MODEL } from "./made_sae.ts";
import { runTask, scratchFolder, startTask, type TaskRun } from "./run_task.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const REPO = "models--owner--name";
const FOLDER = join("hub", REPO);

type Files = Record<string, Uint8Array<ArrayBuffer>>;

/** A hub with one repository, and a home for its cache. */
class Scene implements AsyncDisposable {
  readonly hub = new FakeHub();
  readonly #folder = scratchFolder();

  constructor(readonly files: Files) {
    this.hub.repos["models/owner/name"] = { commit: COMMIT, files };
  }

  get home(): string {
    return this.#folder.path;
  }

  get env(): Record<string, string> {
    const { home, hub: { endpoint } } = this;
    return {
      HF_HOME: home,
      HF_HUB_CACHE: "",
      HF_ENDPOINT: endpoint,
      HF_TOKEN: "",
    };
  }

  path(...parts: string[]): string {
    return join(this.home, FOLDER, ...parts);
  }

  run(...args: string[]): Promise<TaskRun> {
    return runTask(["download", "owner/name", ...args], { env: this.env });
  }

  start(...args: string[]): Deno.ChildProcess {
    const words = ["download", "owner/name", "--quiet", ...args] as const;
    return startTask(words, { env: this.env });
  }

  /** Throws unless the cache has the files, and nothing unfinished. */
  check(commit = COMMIT): void {
    for (const [path, bytes] of Object.entries(this.files)) {
      const link = this.path("snapshots", commit, path);
      deepEqual(Deno.readFileSync(link), bytes);
      equal(
        Deno.realPathSync(link),
        Deno.realPathSync(this.path("blobs", hashOf(bytes))),
      );
    }
    const blobs = Array.from(
      Deno.readDirSync(this.path("blobs")),
      ({ name }) => name,
    );
    deepEqual(
      blobs.sort(),
      [...new Set(Object.values(this.files).map(hashOf))].sort(),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hub[Symbol.asyncDispose]();
    this.#folder[Symbol.dispose]();
  }
}

/** All files of a folder. */
function filesOf(path: string, under = ""): Files {
  return Object.fromEntries(
    Array.from(Deno.readDirSync(path), ({ name }) => [
      under + name,
      Deno.readFileSync(join(path, name)),
    ]),
  );
}

Deno.test("download makes the cache of Python, and tasks take what is in it by its id, without the network", async () => {
  using made = scratchFolder();
  await makeSae(made.path);
  await using scene = new Scene({
    ...filesOf(MODEL),
    ...filesOf(made.path, "saes/layer 3/"),
  });
  const { "README.md": _, ...files } = scene.files;
  const first = await scene.run("--connections=3", "--range=1");
  equal(first.code, 0, first.stderr);
  equal(first.stdout, `${scene.path("snapshots", COMMIT)}\n`);
  match(first.stderr, /^download: 1\d MB in .* MB\/s\n$/);
  equal(Deno.readTextFileSync(scene.path("refs", "main")), COMMIT);
  for (const [path, bytes] of Object.entries(files)) {
    const depth = path.split("/").length + 1;
    const link = Deno.readLinkSync(scene.path("snapshots", COMMIT, path));
    equal(link, `${"../".repeat(depth)}blobs/${hashOf(bytes)}`);
  }
  ok(!existsSync(scene.path("snapshots", COMMIT, "README.md")));
  scene.hub.asked.length = 0;
  const again = await scene.run();
  equal(again.stdout, first.stdout);
  deepEqual(scene.hub.asked.map(({ file }) => file), [""], "the listing alone");

  const env = { ...scene.env, HF_ENDPOINT: "http://127.0.0.1:9" };
  const verify = await runTask([
    "verify",
    `--model=owner/name@${COMMIT}`,
    "--expected=tests/fixtures/tiny-olmo2/expected.safetensors",
  ], { env });
  match(verify.stdout, /: all \d+ checks ok\n$/, verify.stderr);
  const words = [
    "steer",
    "hello",
    "--model=owner/name",
    "--max-tokens=3",
  ] as const;
  const sae = "--sae=owner/name/saes/layer 3@main";
  const steer = await runTask([...words, sae, "--steer=3=2"], { env });
  equal(steer.code, 0, steer.stderr);

  Deno.removeSync(scene.path("blobs", hashOf(files["model.safetensors"]!)));
  const broken = await runTask([...words, "--quiet"], { env });
  equal(
    broken.stderr,
    `error: Cannot open model "owner/name": only a part of it is at "${
      join(scene.home, "hub")
    }", without model.safetensors: run ./ocs download owner/name\n`,
  );
  equal((await scene.run()).code, 0);
  equal((await runTask([...words, "--quiet"], { env })).code, 0);
  const folder = scene.path("snapshots", COMMIT);
  Deno.removeSync(join(folder, "tokenizer.json"));
  Deno.removeSync(scene.path("ocs"), { recursive: true }); // as Python leaves it
  const missing = await runTask(["chat", "--model=owner/name"], { env });
  equal(
    missing.stderr,
    `error: Cannot open "tokenizer.json": no such file in "${folder}": run ./ocs download owner/name\n`,
  );
});

Deno.test("download goes on after kill -9 at any moment, and asks for nothing again that was recorded", async () => {
  const bytes = noise(4_000_003);
  await using scene = new Scene({
    "config.json": noise(500),
    "model.safetensors": bytes,
  });
  const rangeBytes = 2 ** 17;
  const nConnections = 3;
  const flags = ["--range=0.125", `--connections=${nConnections}`];
  const log = scene.path("blobs", `${sha256(bytes)}.ranges.incomplete`);
  const recorded = (): ByteRange[] =>
    existsSync(log)
      ? parseRanges(Deno.readTextFileSync(log), bytes.length)
      : [];
  scene.hub.misbehave = (asked, all) => slowAnswer(asked, all, 16_384, 3);
  let nKilled = 0;
  for (let run = 0; run < 3; run++) {
    const before = recorded();
    const had = countBytes(before);
    scene.hub.asked.length = 0;
    const child = scene.start(...flags);
    const output = child.output();
    let isOver = false;
    output.then(() => isOver = true);
    while (!isOver && countBytes(recorded()) < had + 2 * rangeBytes) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const ms = Math.floor(40 * Math.random());
    await new Promise((resolve) => setTimeout(resolve, ms));
    if (!isOver) child.kill("SIGKILL");
    const { code, stderr } = await output;
    equal(code, 137, new TextDecoder().decode(stderr));
    nKilled++;
    for (const { start, end } of before) {
      ok(
        scene.hub.asked.every((asked) =>
          asked.file !== "model.safetensors" || asked.end <= start ||
          asked.start >= end
        ),
        `asked again for what was recorded, [${start}, ${end})`,
      );
    }
    ok(!existsSync(scene.path("refs")), "no ref before all is there");
  }
  const task = await runTask(["steer", "x", "--model=owner/name"], {
    env: scene.env,
  });
  match(
    task.stderr,
    /^error: Cannot open model "owner\/name": only a part of it is .*, without config\.json: run \.\/ocs download owner\/name\n$/,
  );
  const kept = countBytes(recorded());
  ok(kept >= 2 * nKilled * rangeBytes);
  scene.hub.misbehave = () => undefined;
  scene.hub.asked.length = 0;
  const last = await scene.run(...flags);
  equal(last.code, 0, last.stderr);
  equal(
    scene.hub.countAsked(({ file }) => file === "model.safetensors"),
    bytes.length - kept,
  );
  scene.check();
});

Deno.test("download stops at Ctrl-C, keeps what came, and says how to go on", async () => {
  const bytes = noise(3_000_000);
  await using scene = new Scene({ "model.safetensors": bytes });
  scene.hub.misbehave = (asked, all) => slowAnswer(asked, all, 16_384, 3);
  const child = startTask(["download", "owner/name"], { env: scene.env });
  const output = child.output();
  const part = scene.path("blobs", `${sha256(bytes)}.ocs.incomplete`);
  const size = (): number => existsSync(part) ? Deno.statSync(part).size : 0;
  while (size() < 200_000) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  child.kill("SIGINT");
  const { code, stderr } = await output;
  equal(code, 130);
  match(
    new TextDecoder().decode(stderr),
    /stopped by Ctrl-C: what has arrived is kept: run the same command to go on where it stopped\n$/,
  );
  scene.hub.misbehave = () => undefined;
  scene.hub.asked.length = 0;
  equal((await scene.run()).code, 0);
  ok(scene.hub.countAsked() <= bytes.length - 200_000);
  scene.check();
});

Deno.test("two downloads of a repository at once fetch it once", async () => {
  await using scene = new Scene({
    "config.json": noise(400),
    "model.safetensors": noise(1_000_000),
  });
  scene.hub.misbehave = (asked, all) => slowAnswer(asked, all, 32_768, 10);
  const runs = await Promise.all([
    scene.run("--range=0.2"),
    scene.run("--range=0.3"),
  ]);
  for (const { code, stderr, stdout } of runs) {
    equal(code, 0, stderr);
    equal(stdout, `${scene.path("snapshots", COMMIT)}\n`);
  }
  const waited = runs.filter(({ stderr }) =>
    stderr.includes("waiting for another")
  );
  equal(waited.length, 1);
  equal(scene.hub.countAsked(), 1_000_400);
  scene.check();
});

Deno.test("download of a commit that is there needs no network", async () => {
  await using scene = new Scene({
    "config.json": noise(400),
    "model.safetensors": noise(50_000),
  });
  const at = `--revision=${COMMIT}`;
  const first = await scene.run(at);
  equal(first.code, 0, first.stderr);
  ok(!existsSync(scene.path("refs")), "a commit is no branch");
  scene.hub.asked.length = 0;
  const again = await scene.run(at, "--quiet");
  deepEqual(again, { code: 0, stdout: first.stdout, stderr: "" });
  equal(scene.hub.asked.length, 0);
  equal((await scene.run(at, "--include=config.json")).code, 0);
  equal(scene.hub.asked.length, 0);
});

Deno.test("download takes datasets, patterns, tags and a folder, and --list only tells", async () => {
  await using scene = new Scene({});
  const { hub, env } = scene;
  const files = { "data/a.parquet": noise(20_000), "README.md": noise(30) };
  hub.repos["datasets/owner/data"] = { commit: COMMIT, files };
  hub.revisions["v1"] = COMMIT;
  const words = ["download", "owner/data", "--type=dataset"] as const;
  const list = await runTask([...words, "--list"], { env });
  equal(list.code, 0, list.stderr);
  match(
    list.stdout,
    /^file +size\n.*\nREADME\.md +30 B\ndata\/a\.parquet +20\.0 kB\n2 files, 20\.0 kB\n$/,
  );
  deepEqual([...Deno.readDirSync(scene.home)], []);
  const run = await runTask([...words, "--revision=v1", "--exclude=*.md"], {
    env,
  });
  const folder = join(scene.home, "hub/datasets--owner--data");
  equal(run.stdout, `${folder}/snapshots/${COMMIT}\n`, run.stderr);
  equal(Deno.readTextFileSync(join(folder, "refs/v1")), COMMIT);
  deepEqual(
    Array.from(
      Deno.readDirSync(join(folder, "snapshots", COMMIT)),
      ({ name }) => name,
    ),
    ["data"],
  );
});

Deno.test("download says in one line what is wrong, and never the token", async () => {
  await using scene = new Scene({ "config.json": noise(40) });
  const { hub } = scene;
  const gated = { commit: COMMIT, files: scene.files, isGated: true };
  hub.repos["models/owner/gated"] = gated;
  hub.repos["models/owner/evil"] = {
    ...gated,
    isGated: false,
    listing: ([first]) => [{ ...first, rfilename: "../../../config.json" }],
  };
  hub.repos["models/owner/huge"] = {
    ...gated,
    isGated: false,
    listing: ([first]) => [{ ...first, size: 2 ** 44 }],
  };
  const refused = async (
    args: readonly string[],
    message: RegExp,
    env: Record<string, string> = {},
  ): Promise<void> => {
    const run = await runTask(["download", ...args], {
      env: { ...scene.env, ...env },
    });
    match(run.stderr, /^error: Cannot [^\n]+\n$/);
    match(run.stderr, message);
    ok(!run.stderr.includes("hf_"), run.stderr);
    equal(run.code, 1);
    equal(run.stdout, "");
    ok(!existsSync(join(scene.home, "hub/models--owner--name/snapshots")));
  };
  await Promise.all([
    refused(["owner"], /expected owner\/name of a repository/),
    refused(
      ["owner/name", "--revision=../x"],
      /expected one branch, tag or commit/,
    ),
    refused(["owner/none"], /status 404: no such repository: check the name/),
    refused(["owner/name@v9"], /status 404: no revision "v9": see http/),
  ]);
  await refused(
    ["owner/gated"],
    /status 401: access is gated: accept its license on http:\/\/127\.0\.0\.1:\d+\/owner\/gated, and give a token in HF_TOKEN/,
  );
  await refused(
    ["owner/gated"],
    /status 403: access is gated: .*the token in use may not read it/,
    { HF_TOKEN: "hf_wrong" },
  );
  await refused(["owner/name"], /Cannot use the token/, {
    HF_TOKEN: "hf_a\nb",
  });
  await refused(
    ["owner/evil"],
    /Cannot open "\.\.\/\.\.\/\.\.\/config\.json" in "owner\/evil": expected a file name inside/,
  );
  await refused(
    ["owner/huge"],
    /expected 17\.6 TB free at ".*": got .*: free some space/,
  );
  await refused(
    ["owner/name", "--attempts=1"],
    /^error: Cannot download "owner\/name": .*/,
    { HF_ENDPOINT: "http://127.0.0.1:9" },
  );
  Deno.writeTextFileSync(join(scene.home, "token"), `${TOKEN}\n`);
  const run = await runTask(["download", "owner/gated"], { env: scene.env });
  equal(run.code, 0, "the token of Python's login");
});
