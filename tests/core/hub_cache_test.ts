import { deepEqual, equal, throws } from "node:assert/strict";
import {
  blobLink,
  checkHubFileName,
  formatHubAddress,
  hubCache,
  hubHome,
  nameOfFolder,
  parseHubAddress,
  refPath,
  repoFolder,
  snapshotPath,
} from "../../core/hub_cache.ts";

const MODEL = { type: "model", id: "allenai/OLMo-2-0425-1B" } as const;
const COMMIT = "0123456789abcdef0123456789abcdef01234567";

Deno.test("parseHubAddress() reads repositories, revisions and folders, and gives them back", () => {
  const read = (text: string): unknown[] => {
    const address = parseHubAddress(text)!;
    equal(formatHubAddress(address), text.replace(/@main$/, ""));
    return [address.repo.id, address.folder, address.revision];
  };
  deepEqual(read("a/b"), ["a/b", "", "main"]);
  deepEqual(read("allenai/OLMo-2-0425-1B@v1.0"), [MODEL.id, "", "v1.0"]);
  deepEqual(read("a_1/b.c@refs/pr/1"), ["a_1/b.c", "", "refs/pr/1"]);
  deepEqual(read(`a/b/layer_12/width=16k@${COMMIT}`), [
    "a/b",
    "layer_12/width=16k",
    COMMIT,
  ]);
  deepEqual(read("a/b@main"), ["a/b", "", "main"]);
});

Deno.test("parseHubAddress() takes nothing that could be a path of this machine, or lead out of the cache", () => {
  const others = [
    ...["", "model", "./a/b", "../a", "/a/b", "~/a", "a/", "/b", "a//b"],
    ...[
      "a/b/",
      "a/b/..",
      "a/b/../c",
      "a/b/./c",
      "a/b@",
      "a/b@..",
      "a/b@a/../b",
    ],
    ...["a/b@/x", "a/b@x/", "a/b@x\\y", "a\\b/c", "a/b\nc", "a/b/c:d", "a/-b"],
    ...["a--b/c", "a/b--c", "a/b..c", "a/b.git", "a/.b", `a/${"b".repeat(99)}`],
    ...["a/b@\u0007", "a/b/\u202e", "C:/models/x", "a/b@c@d"],
  ];
  for (const text of others) equal(parseHubAddress(text), undefined, text);
});

Deno.test("hubCache() is where Python has it", () => {
  const env = (values: Record<string, string>) => (name: string) =>
    values[name];
  const cases: [Record<string, string>, string][] = [
    [{ HOME: "/home/ada" }, "/home/ada/.cache/huggingface/hub"],
    [{ HOME: "/h", XDG_CACHE_HOME: "/fast" }, "/fast/huggingface/hub"],
    [{ HOME: "/h", XDG_CACHE_HOME: "/x", HF_HOME: "/hf" }, "/hf/hub"],
    [{ HOME: "/h", HF_HOME: "~/hf" }, "/h/hf/hub"],
    [{ HOME: "/h", HF_HOME: "/hf", HF_HUB_CACHE: "/cache" }, "/cache"],
    [{ HF_HUB_CACHE: "/cache" }, "/cache"],
    [{ USERPROFILE: "C:\\ada" }, "C:\\ada/.cache/huggingface/hub"],
    [{ HOME: "/h", HF_HOME: "" }, "/h/.cache/huggingface/hub"],
  ];
  for (const [values, path] of cases) equal(hubCache(env(values)), path);
  equal(
    hubHome(env({ HOME: "/h", HF_HUB_CACHE: "/c" })),
    "/h/.cache/huggingface",
  );
  throws(
    () => hubCache(env({})),
    /^Error: Cannot find the Hugging Face cache: /,
  );
});

Deno.test("paths in the cache are those of Python", () => {
  const folder = "models--allenai--OLMo-2-0425-1B";
  equal(repoFolder(MODEL), folder);
  equal(repoFolder({ type: "dataset", id: "a/b" }), "datasets--a--b");
  equal(refPath(MODEL, "refs/pr/1"), `${folder}/refs/refs/pr/1`);
  equal(snapshotPath(MODEL, COMMIT), `${folder}/snapshots/${COMMIT}`);
  equal(blobLink("config.json", "ff"), "../../blobs/ff");
  equal(blobLink("a/b/cfg.json", "ff"), "../../../../blobs/ff");
});

Deno.test("nameOfFolder() calls a snapshot by its repository", () => {
  const snapshot = `/c/models--allenai--OLMo-2/snapshots/${COMMIT}`;
  equal(nameOfFolder(snapshot), "allenai/OLMo-2");
  equal(nameOfFolder(`${snapshot}/layer_3/`), "allenai/OLMo-2/layer_3");
  equal(nameOfFolder("/models/tiny-olmo2"), "tiny-olmo2");
  equal(nameOfFolder("/models/snapshots/x"), "x");
  equal(nameOfFolder("/models--a--b/snapshots/x"), "x");
});

Deno.test("checkHubFileName() refuses names that lead elsewhere or that no system has", () => {
  for (
    const name of ["config.json", "a/b/c d.json", "ünïcode", ".gitattributes"]
  ) {
    checkHubFileName(MODEL, name);
  }
  const hostile = [
    ...["", "/etc/passwd", "../x", "a/../../x", "a/..", "./x", "a//b", "a/"],
    ...["a\\b", "C:x", "a\0b", "a\nb", "a\x1b[2Jb", "a\u202eb", "a\u0085b"],
    ...["x".repeat(256), "é".repeat(128)],
  ];
  for (const name of hostile) {
    throws(() => checkHubFileName(MODEL, name), (error: Error) => {
      // deno-lint-ignore no-control-regex -- none may reach a terminal
      return error instanceof RangeError && !/[\x00-\x1f]/.test(error.message);
    }, JSON.stringify(name));
  }
});
