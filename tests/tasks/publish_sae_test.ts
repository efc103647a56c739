/**
 * `publish-sae` against a hub on this machine: what is sent, and what becomes of it when the hub refuses or fails.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { RequestError, type RetryPolicy } from "../../core/retry.ts";
import { FileBlob } from "../../tasks/file_blob.ts";
import { runStage } from "../../tasks/cli.ts";
import { publish } from "../../tasks/hub_publish.ts";
import { PUBLISH_SAE, publishTask } from "../../tasks/publish_sae.ts";
import { noise } from "../core/hub_server.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { exportScene, printed } from "./export_scene.ts";
import { TOKEN, UploadHub } from "./hub_upload_server.ts";
import { D_SAE } from "./made_sae.ts";
import { runTask, scratchFolder, type TaskRun } from "./run_task.ts";

const LABELS = new Map([[1, { label: "dogs" }]]);
const ID = "me/olmo-sae";

/** Runs the task with the token and the hub. */
function runPublish(hub: UploadHub, ...args: string[]): Promise<TaskRun> {
  return runTask(["publish-sae", ID, ...args, "--attempts", "1"], {
    env: { HF_TOKEN: TOKEN, HF_ENDPOINT: hub.endpoint },
  });
}

const text = (bytes: Uint8Array | undefined): string =>
  new TextDecoder().decode(bytes);

Deno.test("publish-sae makes a repository and sends the SAE with its card in one commit; again, only what is new", async () => {
  using scene = await exportScene({ labels: LABELS });
  await using hub = new UploadHub();
  await Deno.writeTextFile(join(scene.sae, "train.json"), "{}");
  await Deno.writeTextFile(
    join(scene.sae, "manifest.json"),
    JSON.stringify({
      ...{ kind: "sae", fingerprint: "x", done: true },
      heldOut: { nTokens: 8192, fvu: 0.083, L0: 25.98, deadShare: 0.25 },
    }),
  );
  const args = ["--sae", scene.sae, "--private"];
  const run = await runPublish(hub, ...args);
  assert.equal(run.code, 0, run.stderr);
  assert.match(run.stdout, /^me\/olmo-sae: 6 files in commit [0-9a-f]{40}\n$/);
  assert.equal(hub.commits.length, 1);
  const { isPrivate, branches } = hub.repos[ID]!;
  assert.ok(isPrivate);
  const { files } = branches["main"]!;
  assert.deepEqual([...files.keys()].sort(), [
    "README.md",
    "cfg.json",
    "feature_max.safetensors",
    "features.jsonl",
    "labels.json",
    "sae_weights.safetensors",
    "sparsity.safetensors",
  ]);
  for (const [name, bytes] of files) {
    if (name === "README.md") continue;
    assert.deepEqual(bytes, await Deno.readFile(join(scene.sae, name)), name);
  }
  const card = text(files.get("README.md"));
  assert.match(
    card,
    /^---\nlibrary_name: saelens\nlicense: "mit"\ntags:\n- sae/,
  );
  assert.match(
    card,
    /\| fraction of variance unexplained \(FVU\) \| 0.0830 \|/,
  );
  assert.match(card, /1 features have a label/);
  // The store of large files never sees the token.
  const toStore = hub.told.filter(({ server }) => server === "store");
  assert.ok(toStore.length > 0 && toStore.every(({ token }) => !token));
  assert.ok(!(run.stdout + run.stderr).includes(TOKEN));

  hub.told.length = 0;
  const again = await runPublish(hub, ...args, "--license", "apache-2.0");
  assert.equal(again.code, 0, again.stderr);
  assert.equal(hub.count(/^PUT/), 0, "large files are there");
  assert.equal(hub.count(/create/), 0);
  assert.match(text(files.get("README.md")), /license: "apache-2.0"/);
});

Deno.test("publish-sae --folder and --revision put an SAE beside others on a branch, and leave a person's card", async () => {
  using scene = await exportScene();
  await using hub = new UploadHub();
  hub.addRepo(ID, false, { "README.md": "mine", "other/cfg.json": "{}" });
  const args = ["--sae", scene.sae, "--folder", "layer_3/64"];
  const run = await runPublish(hub, ...args, "--revision", "v2");
  assert.equal(run.code, 0, run.stderr);
  assert.match(run.stderr, /README.md of me\/olmo-sae is left as it is/);
  const { main, v2 } = hub.repos[ID]!.branches;
  assert.deepEqual([...main!.files.keys()], ["README.md", "other/cfg.json"]);
  assert.equal(text(v2!.files.get("README.md")), "mine");
  assert.match(text(v2!.files.get("layer_3/64/README.md")), /# layer_3\/64\n/);
  assert.ok(v2!.files.has("layer_3/64/sae_weights.safetensors"));
  const secret = await runPublish(hub, ...args, "--private");
  assert.equal(secret.code, 1);
  assert.match(secret.stderr, /expected a private repository.+got a public/);
  assert.equal(hub.commits.length, 1);
});

Deno.test("publish-sae --dry-run prints files, sizes and card without network or token", async () => {
  using scene = await exportScene();
  const run = await runTask(
    ["publish-sae", ID, "--sae", scene.sae, "--dry-run", "--quiet"],
    { env: { HF_ENDPOINT: "http://127.0.0.1:1", HF_TOKEN: "" } },
  );
  assert.equal(run.code, 0, run.stderr);
  assert.equal(run.stderr, "");
  assert.match(run.stdout, /^file +size\n.+\ncfg.json +\d/);
  assert.match(run.stdout, /sae_weights.safetensors +\d+\.\d kB/);
  assert.match(run.stdout, /\n---\nlibrary_name: saelens\n[^]+\n## Use\n/);
});

/** Publishes one large and one small file, waiting in no time. */
async function send(
  hub: UploadHub,
  options: { nAttempts?: number; token?: string; bytes?: number } = {},
): Promise<{ waits: number[]; nSent: number; commit: Promise<string> }> {
  const { nAttempts = 3, token = TOKEN, bytes = 100_000 } = options;
  using folder = scratchFolder();
  const path = join(folder.path, "large");
  await Deno.writeFile(path, noise(bytes));
  const waits: number[] = [];
  const result = { waits, nSent: 0 };
  const retries: RetryPolicy = {
    nAttempts,
    random: () => 0,
    sleep: (ms) => Promise.resolve(void waits.push(ms)),
  };
  const commit = publish({
    endpoint: new URL(hub.endpoint + "/"),
    ...{ token, id: ID, branch: "main", isPrivate: false, title: "test" },
    files: new Map<string, Blob>([
      ["large", await FileBlob.open(path)],
      ["small", new Blob(["small"])],
    ]),
    card: () => undefined,
    retries,
    signal: new AbortController().signal,
    onSent: (n) => result.nSent += n,
    onPhase: () => {},
  });
  await commit.catch(() => {});
  return { ...result, commit };
}

Deno.test("publish() sends large files in parts, and what was cut, refused for a while or failed again", async () => {
  await using hub = new UploadHub();
  hub.partBytes = 30_000;
  const parts = await send(hub);
  await parts.commit;
  assert.equal(hub.count(/^PUT/), 4);
  assert.equal(parts.nSent, 100_000);

  hub.partBytes = Infinity;
  hub.cutAfter = 50_000;
  const cut = await send(hub, { bytes: 12_000_000 });
  await cut.commit;
  assert.equal(cut.waits.length, 1);
  assert.equal(cut.nSent, 12_000_000, "what was lost is not counted");

  const busy = [429, 503, 500];
  hub.misbehave = ({ what }) => {
    const status = /preupload/.test(what) ? busy.shift() : undefined;
    const headers = { "retry-after": "7" };
    return status ? new Response("wait", { status, headers }) : undefined;
  };
  const waited = await send(hub, { nAttempts: 4 });
  await waited.commit;
  assert.deepEqual(waited.waits, [7000, 7000, 7000]);
  assert.equal(hub.commits.length, 3);
});

Deno.test("publish() tells in one line why the hub refuses, without token or address, and commits nothing", async () => {
  await using hub = new UploadHub();
  const answer = (what: RegExp, status: number, error = "no") => {
    hub.misbehave = (told) =>
      what.test(told.what) ? Response.json({ error }, { status }) : undefined;
  };
  const cases: readonly (readonly [RegExp, number, RegExp])[] = [
    [/GET .api.models/, 401, /status 401: the token in HF_TOKEN is not valid/],
    [/create/, 403, /status 403: the token in HF_TOKEN may not write there/],
    [/preupload/, 403, /status 403: the token in HF_TOKEN may not write there/],
    [
      /revision/,
      404,
      /status 404: nothing at \/api\/models\/me\/olmo-sae\/rev/,
    ],
    [/batch/, 500, /status 500: the server failed/],
    [/commit/, 412, /status 412: the repository has changed meanwhile: run/],
    [/commit/, 400, /status 400: the hub refused it \(no\)/],
    [/commit/, 429, /status 429: too many requests/],
    [/PUT/, 403, /status 403: the store of large files refused it: run the sa/],
  ];
  for (const [what, status, pattern] of cases) {
    answer(what, status);
    const { commit } = await send(hub, { nAttempts: 2 });
    await rejectsInOneLine(() => commit, pattern);
    await rejectsInOneLine(
      () => commit,
      /^Error: Cannot publish to "me\/olmo-/,
    );
    await commit.catch((error: Error) => {
      assert.ok(error.cause instanceof RequestError);
      for (let at: unknown = error; at instanceof Error; at = at.cause) {
        assert.ok(!/http|signature|hf_/.test(at.message), at.message);
      }
    });
  }
  hub.misbehave = () => undefined;
  const { commit } = await send(hub, { token: "hf_other" });
  await rejectsInOneLine(
    () => commit,
    /status 401: .+ \(Invalid credentials\)/,
  );
  answer(/PUT/, 400, "see https://store/x?signature=secret\nnow");
  const told = await send(hub);
  await rejectsInOneLine(() => told.commit, /status 400: .+ \(see now\)$/);
  hub.misbehave = ({ what }) =>
    /revision/.test(what) ? Response.json({ sha: "../x" }) : undefined;
  const odd = await send(hub);
  await rejectsInOneLine(() => odd.commit, /expected what a hub says of a rep/);
  assert.equal(hub.commits.length, 0);
});

Deno.test("publish() takes a repository that another process has just made", async () => {
  await using hub = new UploadHub();
  hub.misbehave = ({ what }) => {
    if (/create/.test(what)) hub.addRepo(ID, false);
    return undefined;
  };
  await (await send(hub)).commit;
  assert.equal(hub.count(/create/), 1);
  assert.equal(hub.commits.length, 1);
});

Deno.test("publish-sae refuses what nobody could use before it asks the hub", async () => {
  using scene = await exportScene();
  const here = (...args: string[]) =>
    printed((context) =>
      runStage(PUBLISH_SAE, publishTask, [ID, ...args], context)
    );
  const refused = async (
    pattern: RegExp,
    files: Record<string, string | Uint8Array>,
  ): Promise<void> => {
    const sae = await Deno.makeTempDir({ dir: scene.path });
    for (const { name } of Deno.readDirSync(scene.sae)) {
      await Deno.copyFile(join(scene.sae, name), join(sae, name));
    }
    for (const [name, content] of Object.entries(files)) {
      const bytes = typeof content === "string"
        ? new TextEncoder().encode(content)
        : content;
      await Deno.writeFile(join(sae, name), bytes);
    }
    await rejectsInOneLine(() => here("--sae", sae, "--dry-run"), pattern);
  };
  await here("--sae", scene.sae, "--dry-run");
  const weights = await Deno.readFile(
    join(scene.sae, "sae_weights.safetensors"),
  );
  weights.set([0, 0, 0xc0, 0x7f], weights.length - 4); // NaN
  const index = await Deno.readTextFile(join(scene.sae, "features.jsonl"));
  await refused(/expected a complete training run: got one that has not/, {
    "manifest.json": JSON.stringify({ kind: "sae", fingerprint: "x" }),
  });
  await refused(/expected finite values in tensor ".+": got NaN/, {
    "sae_weights.safetensors": weights,
  });
  await refused(/Cannot use ".+features.jsonl": expected an index of model/, {
    "features.jsonl": index.replace(
      /"saeFingerprint":"./,
      '"saeFingerprint":"x',
    ),
  });
  await refused(/expected weights that take activations as they are/, {
    "activation_scaler.json": '{"scaling_factor": 2}',
  });
  await refused(/expected features from 0 to 63: got 64/, {
    "labels.json": JSON.stringify({ [D_SAE]: { label: "x" } }),
  });
  await rejectsInOneLine(
    () => here("--sae", scene.path, "--dry-run"),
    /Cannot open an SAE in/,
  );
  const beside = join(scene.sae, "other.safetensors");
  await Deno.copyFile(join(scene.sae, "sae_weights.safetensors"), beside);
  await rejectsInOneLine(
    () => here("--sae", beside, "--dry-run"),
    /expected the weights in sae_weights.safetensors: got other.safetensors/,
  );
  for (
    const [flag, value, expected] of [
      ["--folder", "../x", "a path inside the repository"],
      ["--revision", "a..b/..", "a branch"],
      ["--license", "mit\nx", "an id such as mit"],
    ] as const
  ) {
    await rejectsInOneLine(
      () => here("--sae", scene.sae, "--dry-run", flag, value),
      new RegExp(
        `^TypeError: Cannot publish with ${flag} .+expected ${expected}`,
      ),
    );
  }
  const run = await runTask(["publish-sae", ID, "--sae", scene.sae], {
    env: {
      HF_ENDPOINT: "http://127.0.0.1:1",
      HF_TOKEN: "",
      HF_HOME: scene.path,
    },
  });
  assert.equal(run.code, 1);
  assert.match(
    run.stderr,
    /error: Cannot publish to "me\/olmo-sae": expected a token with write access in HF_TOKEN: got none/,
  );
});
