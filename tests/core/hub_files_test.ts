import { deepEqual, equal, throws } from "node:assert/strict";
import {
  chooseFiles,
  type FileChoice,
  type HubFile,
  matchesGlob,
  parseListing,
} from "../../core/hub_files.ts";

const REPO = { type: "model", id: "owner/name" } as const;
const COMMIT = "0".repeat(40);
const ALL: FileChoice = { folder: "", include: [], exclude: [] };

/** A listing of files that hold different things. */
function listing(...paths: string[]): { commit: string; files: HubFile[] } {
  const files = paths.map((path, i) => ({
    path,
    size: i,
    hash: i.toString(16).padStart(64, "0"),
  }));
  return { commit: COMMIT, files };
}

function chosen(paths: string[], choice: Partial<FileChoice> = {}): string[] {
  const files = chooseFiles(REPO, listing(...paths), { ...ALL, ...choice });
  return files.map(({ path }) => path);
}

Deno.test("matchesGlob() fits names as Python's fnmatch does", () => {
  const cases: [string, string, boolean][] = [
    ["*", "", true],
    ["*.json", "config.json", true],
    ["*.json", "sub/config.json", true],
    ["*.json", "config.jsonl", false],
    ["sub/*", "sub/a/b", true],
    ["sub/", "sub/a/b", true],
    ["sub/", "sub", false],
    ["config.json", "sub/config.json", false],
    ["model-?????-of-*", "model-00001-of-00002.safetensors", true],
    ["a?c", "ac", false],
    ["[ab]x", "bx", true],
    ["[!ab]x", "bx", false],
    ["[a-c]x", "bx", true],
    ["[a-c]x", "dx", false],
    ["[]]x", "]x", true],
    ["[x", "[x", true],
    ["[!]x", "[!]x", true],
    ["[!]x", "ax", false],
    ["[!]]x", "ax", true],
    ["a.c", "abc", false],
    ["*a*b*c*", "__a__b__c__", true],
    ["*a*b*c*", "__a__c__b__", false],
    ["(x|y)+", "(x|y)+", true],
    ["Ä*", "Äb", true],
    ["?", "😀", true],
  ];
  for (const [pattern, name, fits] of cases) {
    equal(matchesGlob(pattern, name), fits, `${pattern} ${name}`);
  }
});

Deno.test("matchesGlob() is fast where a regular expression would take forever", () => {
  const start = performance.now();
  equal(matchesGlob("*a".repeat(40) + "b", "a".repeat(5000)), false);
  equal(performance.now() - start < 1000, true);
});

Deno.test("chooseFiles() takes what tasks read of a model, and no weights twice", () => {
  const files = [
    ...[".gitattributes", "README.md", "chat_template.jinja", "config.json"],
    ...["generation_config.json", "model-00001-of-00002.safetensors"],
    ...["model.safetensors.index.json", "special_tokens_map.json"],
    ...["tokenizer.json", "tokenizer_config.json", "sae/3/cfg.json"],
    ...["sae/3/sae_weights.safetensors", "sae/3/params.npz", "ae.pt"],
  ];
  const others = [
    ...["pytorch_model-00001-of-00002.bin", "model.gguf", "model.onnx"],
    ...["flax_model.msgpack", "tf_model.h5", "original/params.json"],
    ...["original/model.safetensors", "consolidated.00.safetensors"],
    ...["onnx/config.json", "training_args.bin"],
  ];
  deepEqual(chosen([...others, ...files]), files.slice(2).sort());
});

Deno.test("chooseFiles() takes and leaves what it is told, below a folder if it is", () => {
  const files = ["README.md", "a/cfg.json", "a/x.bin", "ab/cfg.json", "x.bin"];
  deepEqual(chosen(files, { include: ["*.bin"] }), ["a/x.bin", "x.bin"]);
  deepEqual(
    chosen(files, { include: ["*"], exclude: ["a/*", "*.md"] }),
    ["ab/cfg.json", "x.bin"],
  );
  deepEqual(chosen(files, { folder: "a" }), ["a/cfg.json"]);
  throws(() => chosen(files, { folder: "b" }), /files in "b" that tasks read/);
  throws(
    () => chosen(files, { include: ["*.gguf"] }),
    /^RangeError: Cannot download "owner\/name": .*got none of 5: name files/,
  );
  const dataset = { type: "dataset", id: "a/b" } as const;
  equal(chooseFiles(dataset, listing(...files), ALL).length, 5);
});

Deno.test("chooseFiles() refuses hostile names and names that cannot lie together", () => {
  const any = { include: ["*"] };
  const hostile = [
    ...["../config.json", "/etc/config.json", "a\\config.json", "a/../b"],
    ...["a\u0000b", "a\u001bb", "C:config.json"],
  ];
  for (const name of hostile) {
    throws(() => chosen(["config.json", name], any), { name: "RangeError" });
    deepEqual(chosen(["config.json", name], { exclude: [name] }), [
      "config.json",
    ]);
  }
  const collisions = [
    ["config.json", "config.json"],
    ["config.json", "Config.json"],
    ["a", "a/config.json"],
    ["a/config.json", "A"],
    ["caf\u00e9", "cafe\u0301"],
  ];
  for (const names of collisions) {
    throws(
      () => chosen(names, any),
      /^RangeError: Cannot download .* can lie beside each other: got/,
    );
  }
  const [first, second] = listing("a.json", "b.json").files;
  const files = [first!, { ...second!, hash: first!.hash }];
  throws(
    () => chooseFiles(REPO, { commit: COMMIT, files }, { ...ALL, ...any }),
    /expected one length of what has hash 0+/,
  );
});

Deno.test("parseListing() believes nothing of another form", () => {
  const hash = "a".repeat(40);
  const sibling = { rfilename: "x", size: 3, blobId: hash };
  const lfs = { sha256: "b".repeat(64), size: 9 };
  const read = (siblings: unknown, sha: unknown = COMMIT): HubFile[] =>
    parseListing({ sha, siblings }, "http://hub").files as HubFile[];
  deepEqual(read([sibling, { ...sibling, rfilename: "y", lfs }]), [
    { path: "x", size: 3, hash },
    { path: "y", size: 9, hash: lfs.sha256 },
  ]);
  const sizes = [-1, 1.5, 2 ** 45, 2 ** 53, 1e300, "3", null, undefined];
  const wrong: unknown[] = [
    ...sizes.map((size) => [{ ...sibling, size }]),
    ...sizes.map((size) => [{ ...sibling, lfs: { ...lfs, size } }]),
    [{ ...sibling, blobId: "../../x" }],
    [{ ...sibling, lfs: { ...lfs, sha256: "A".repeat(64) } }],
    ...[[{ ...sibling, rfilename: 3 }], {}, null],
  ];
  for (const siblings of wrong) {
    throws(() => read(siblings), { name: "SyntaxError" });
  }
  for (const sha of ["main", "../x", "A".repeat(40), 3]) {
    throws(() => read([sibling], sha), { name: "SyntaxError" });
  }
});
