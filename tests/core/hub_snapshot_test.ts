import { equal, rejects } from "node:assert/strict";
import { parseHubAddress } from "../../core/hub_cache.ts";
import { findSnapshot } from "../../core/hub_snapshot.ts";
import { type Folder, memoryFolder } from "../../core/source.ts";

const COMMIT = "c".repeat(40);
const REPO = "models--owner--name";
const SNAPSHOT = `${REPO}/snapshots/${COMMIT}`;
const INDEX = "model.safetensors.index.json";

/** Looks an address up in a cache of files, each the text it holds. */
function find(
  address: string,
  files: Readonly<Record<string, string>>,
): Promise<string> {
  const open = (path: string): Folder | undefined => {
    const start = path === "" ? "" : `${path}/`;
    const inside = Object.entries(files).filter(([file]) =>
      file.startsWith(start)
    ).map(([file, text]) =>
      [file.slice(start.length), new TextEncoder().encode(text)] as const
    );
    if (inside.length === 0) return undefined;
    const folder = memoryFolder(path, Object.fromEntries(inside));
    const list = async (): Promise<string[]> =>
      (await folder.list()).filter((name) => !name.includes("/"));
    return { ...folder, list };
  };
  return findSnapshot("model", parseHubAddress(address)!, open, "/cache");
}

/** The note on a download of files of 3 bytes. */
function note(
  wanted: readonly string[],
  others: readonly string[] = [],
): string {
  const files = [...wanted, ...others].map((path) => ({
    path,
    size: 3,
    hash: "a".repeat(40),
  }));
  return JSON.stringify({ commit: COMMIT, revision: "main", files, wanted });
}

const WHOLE = {
  [`${REPO}/refs/main`]: COMMIT,
  [`${SNAPSHOT}/config.json`]: "{ }",
  [`${SNAPSHOT}/model.safetensors`]: "abc",
};

Deno.test("findSnapshot() finds branches, tags, commits and folders", async () => {
  const files = {
    ...WHOLE,
    [`${REPO}/refs/refs/pr/1`]: COMMIT + "\n",
    [`${SNAPSHOT}/sae/layer 3/cfg.json`]: "{ }",
  };
  equal(await find("owner/name", files), SNAPSHOT);
  equal(await find("owner/name@refs/pr/1", files), SNAPSHOT);
  equal(await find(`owner/name@${COMMIT}`, files), SNAPSHOT);
  equal(await find("owner/name/sae/layer 3", files), `${SNAPSHOT}/sae/layer 3`);
});

Deno.test("findSnapshot() says what to run where something is not in the cache", async () => {
  const none =
    'no such folder, and not in the Hugging Face cache at "/cache": run ./ocs download';
  const cases: [string, Record<string, string>, string][] = [
    ["owner/name", {}, `Cannot open model "owner/name": ${none} owner/name`],
    [
      "owner/other",
      WHOLE,
      `Cannot open model "owner/other": ${none} owner/other`,
    ],
    [
      "owner/name@v2",
      WHOLE,
      `Cannot open model "owner/name@v2": ${none} owner/name@v2`,
    ],
    [
      `owner/name@${"d".repeat(40)}`,
      WHOLE,
      `Cannot open model "owner/name@${"d".repeat(40)}": ${none} owner/name@${
        "d".repeat(40)
      }`,
    ],
    [
      "owner/name/my sae",
      WHOLE,
      'Cannot open model "owner/name/my sae": no folder "my sae" of owner/name@main in "/cache": run ./ocs download "owner/name/my sae"',
    ],
  ];
  for (const [address, files, message] of cases) {
    await rejects(find(address, files), { message });
  }
  await rejects(find("owner/name", { [`${REPO}/refs/main`]: "../../x" }), {
    name: "SyntaxError",
    message: /refs\/main": expected a commit of 40 hex digits/,
  });
});

Deno.test("findSnapshot() tells a part from the whole, and names the first file that is missing", async () => {
  const noted = `${REPO}/ocs/${COMMIT}.json`;
  const inPart = (file: string): { message: string } => ({
    message:
      `Cannot open model "owner/name": only a part of it is at "/cache", without ${file}: run ./ocs download owner/name`,
  });
  const wanted = note(["config.json", "model.safetensors"], ["model.gguf"]);
  equal(await find("owner/name", { ...WHOLE, [noted]: wanted }), SNAPSHOT);
  // Stopped before anything was linked.
  await rejects(find("owner/name", { [noted]: wanted }), inPart("config.json"));
  // A file is gone, or shorter than it was.
  const { [`${SNAPSHOT}/model.safetensors`]: _, ...rest } = WHOLE;
  await rejects(
    find("owner/name", { ...rest, [noted]: wanted }),
    inPart("model.safetensors"),
  );
  const short = { ...WHOLE, [`${SNAPSHOT}/model.safetensors`]: "ab" };
  await rejects(
    find("owner/name", { ...short, [noted]: wanted }),
    inPart("model.safetensors"),
  );
  // Python was stopped; it notes nothing, but a checkpoint knows its shards.
  const weight_map = { a: "1.safetensors", b: "2.safetensors" };
  const sharded = {
    ...rest,
    [`${SNAPSHOT}/${INDEX}`]: JSON.stringify({ weight_map }),
    [`${SNAPSHOT}/1.safetensors`]: "abc",
  };
  await rejects(find("owner/name", sharded), inPart("2.safetensors"));
});

Deno.test("findSnapshot() minds only the files that are read from the folder", async () => {
  const noted = `${REPO}/ocs/${COMMIT}.json`;
  const wanted = note([
    ...["config.json", "model.safetensors", "model.bin", "other/cfg.json"],
    "sae/cfg.json",
  ]);
  const files = {
    ...WHOLE,
    [noted]: wanted,
    [`${SNAPSHOT}/sae/cfg.json`]: "{ }",
  };
  equal(await find("owner/name", files), SNAPSHOT);
  equal(await find("owner/name/sae", files), `${SNAPSHOT}/sae`);
  await rejects(find("owner/name/other", files), {
    message:
      /without other\/cfg\.json: run \.\/ocs download owner\/name\/other$/,
  });
});
