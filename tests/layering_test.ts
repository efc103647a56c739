import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { findViolations } from "./layering.ts";

const ROOT = dirname(import.meta.dirname!);

/** Violations of a tree of the given files; its top level is in order. */
function check(files: Record<string, string>): string[] {
  return findViolations(new Map(Object.entries(files)), []);
}

/** Adds every source below a folder, by its path from the root. */
function readSources(folder: string, sources: Map<string, string>): void {
  for (const entry of Deno.readDirSync(join(ROOT, folder))) {
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    const skipped = entry.name.startsWith(".") ||
      ["node_modules", "out", "cov"].includes(entry.name);
    if (entry.isDirectory && !skipped) readSources(path, sources);
    if (entry.isFile && /\.(tsx?|wgsl)$/.test(path)) {
      sources.set(path, Deno.readTextFileSync(join(ROOT, path)));
    }
  }
}

Deno.test("findViolations() finds none when it reads this repository", () => {
  const sources = new Map<string, string>();
  readSources("", sources);
  assert.ok(sources.has("gpu/device.ts"), "the sources were read");
  const topLevel = Array.from(Deno.readDirSync(ROOT), ({ name }) => name);
  assert.deepEqual(findViolations(sources, topLevel), []);
});

Deno.test("findViolations() lets a folder import from its left when every direction is used", () => {
  const violations = check({
    "gpu/device.ts": `import { a } from "./dtype.ts"; import { z } from "zod";`,
    "kernels/add.ts":
      `import wgsl from "./add.wgsl"; import part from "./reduce.wgsl";
       import "../gpu/mod.ts";`,
    "kernels/add.wgsl": "",
    "kernels/reduce.wgsl": "",
    "core/files.ts":
      `import "node:path"; import "../kernels/add.ts"; Deno.cwd();`,
    "train/adam.ts": `import "node:path"; import "../core/sae.ts"; Deno.cwd();`,
    "steer/find.ts": `export * from "../core/sae.ts";`,
    "mod.ts": `export { find } from "./steer/find.ts";`,
    "tasks/find.ts": `import "../mod.ts"; import "../steer/find.ts";
       console.log("done"); Deno.exit(1);`,
    "bench/main.ts":
      `import "../tasks/cli.ts"; import "../train/adam.ts"; console.log(1);`,
    "web/main.tsx":
      `import type { A } from "../mod.ts"; export const b = <a />;`,
    "tests/find_test.ts": `import "../tasks/find.ts"; console.log("seen");`,
  });
  assert.deepEqual(violations, []);
});

const FORBIDDEN_IMPORTS: readonly [path: string, source: string][] = [
  ["gpu/a.ts", `import { Sae } from "../core/sae.ts";`],
  ["gpu/a.ts", `import type { Sae } from "../core/sae.ts";`],
  ["kernels/a.ts", `export * from "../core/sae.ts";`],
  ["kernels/a.ts", `export { Sae } from "../core/sae.ts";`],
  ["core/a.ts", `const later = await import("../train/adam.ts");`],
  ["core/a.ts", `type Adam = import("../train/adam.ts").Adam;`],
  ["core/a.ts", `new Worker(new URL("../steer/w.ts", import.meta.url));`],
  ["train/a.ts", `import "../steer/find.ts";`],
  ["steer/a.ts", `import "../train/adam.ts";`],
  ["steer/a.ts", `import "../mod.ts";`],
  ["steer/a.ts", `import "../tests/assert_close.ts";`],
  ["tasks/a.ts", `import "../web/main.tsx";`],
  ["tasks/a.ts", `import "../bench/side.ts";`],
  ["web/a.tsx", `import "../tasks/find.ts";`],
  ["mod.ts", `export * from "./tasks/find.ts";`],
  ["tests/a_test.ts", `import "../../elsewhere/a.ts";`],
];

for (const [path, source] of FORBIDDEN_IMPORTS) {
  Deno.test(`findViolations() refuses the import when ${path} says ${source}`, () => {
    const violations = check({ [path]: source });
    assert.equal(violations.length, 1);
    assert.match(violations[0]!, /: may not import /);
  });
}

Deno.test("findViolations() refuses a package when deno.json does not list it", () => {
  assert.deepEqual(check({ "web/a.ts": `import "jsr:@fresh/core";` }), [
    'web/a.ts: imports "jsr:@fresh/core" without an entry in deno.json',
  ]);
});

Deno.test("findViolations() refuses an import when its target is computed", () => {
  assert.deepEqual(check({ "tasks/a.ts": "await import(Deno.args[0]);" }), [
    "tasks/a.ts: imports what only a run can tell",
  ]);
});

Deno.test("findViolations() refuses a shader when another file than its owner imports it", () => {
  const violations = check({
    "kernels/add.ts": `import wgsl from "./add.wgsl";`,
    "kernels/add.wgsl": "",
    "kernels/mul.ts": `import wgsl from "./add.wgsl";`,
    "kernels/reduce.wgsl": "",
    "kernels/unused.wgsl": "",
    "steer/find.ts": `import part from "../kernels/reduce.wgsl";`,
  });
  assert.deepEqual(violations, [
    "kernels/mul.ts: may not import kernels/add.wgsl: kernels/add.ts owns it",
    "steer/find.ts: may not import kernels/reduce.wgsl: only kernels import shaders",
    "kernels/unused.wgsl: no kernel imports it",
  ]);
});

Deno.test("findViolations() refuses Deno, node: and console when the folder may not use them", () => {
  const violations = check({
    "core/a.ts": `import "node:path"; const cwd = globalThis.Deno?.cwd();`,
    "steer/a.ts": `let file: Deno.FsFile;`,
    "train/a.ts": `console.log("loss"); Deno.exit(1);`,
    "web/a.tsx": `const b = <a onClick={() => console.log("b")} />;`,
  });
  assert.deepEqual(violations, [
    'core/a.ts: imports "node:path" where only web APIs are allowed',
    "core/a.ts: uses Deno where only web APIs are allowed",
    "steer/a.ts: uses Deno where only web APIs are allowed",
    "train/a.ts: uses console: only tasks may",
    "train/a.ts: uses Deno.exit: only tasks may",
    "web/a.tsx: uses console: only tasks may",
  ]);
});

Deno.test("findViolations() finds none when the words stand in comments and strings", () => {
  const violations = check({
    "gpu/a.ts": `/** As Deno's console: import "../tasks/a.ts" */
      // import "../tasks/a.ts"
      export const text = \`\${1} import "../tasks/a.ts"; Deno console\`;`,
  });
  assert.deepEqual(violations, []);
});

Deno.test("findViolations() refuses an entry of the top level when it is not listed", () => {
  const names = ["deno.json", "out", "package.json", "utils.ts", "LICENSE"];
  assert.deepEqual(findViolations(new Map(), names), [
    "package.json: not an entry of the top level",
    "utils.ts: not an entry of the top level",
  ]);
});
