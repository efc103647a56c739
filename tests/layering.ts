/**
 * The rules on who may import and call what, checked on the syntax tree.
 * `layering_test.ts` holds the repository to them.
 * @module
 */
import { posix } from "node:path";

/** What each folder may import besides itself: `gpu ← kernels ← core ← {train, steer} ← {tasks ← bench, web}`. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  gpu: [],
  kernels: ["gpu"],
  core: ["gpu", "kernels"],
  train: ["gpu", "kernels", "core"],
  steer: ["gpu", "kernels", "core"],
  "mod.ts": ["gpu", "kernels", "core", "train", "steer"],
  tasks: ["gpu", "kernels", "core", "train", "steer", "mod.ts"],
  bench: ["gpu", "kernels", "core", "train", "steer", "mod.ts", "tasks"],
  web: ["gpu", "kernels", "core", "train", "steer", "mod.ts"],
};

/** Folders that also run in a browser: no `Deno` and no `node:` but in {@link EDGE_FILES}. */
const WEB_FOLDERS: readonly string[] = ["gpu", "kernels", "core", "steer"];

/** The files where those folders meet Deno, which a browser does without. */
const EDGE_FILES: ReadonlySet<string> = new Set([
  "core/files.ts", // paths of this machine
  "core/flags.ts", // the command line
]);

/** All that may lie at the top of the repository. */
const TOP_LEVEL: ReadonlySet<string> = new Set([
  ...Object.keys(MAY_IMPORT),
  ".ci",
  ".github",
  ".gitignore",
  "LICENSE",
  "README.md",
  "deno.json",
  "deno.lock",
  "models",
  "ocs",
  "tests",
]);

/** What tools leave there, and Git ignores. */
const IGNORED: ReadonlySet<string> = new Set([".deno", ".git", "cov", "out"]);

/** An import or a global that a file uses. */
interface Use {
  readonly kind: "import" | "Deno" | "Deno.exit" | "console";
  /** The specifier of an import; empty for a global. */
  readonly specifier: string;
}

/**
 * The rules that a tree breaks, one line each.
 * @param sources Text of every `.ts`, `.tsx` and `.wgsl` file, by path from the root.
 * @param topLevel Names of all entries at the root.
 */
export function findViolations(
  sources: ReadonlyMap<string, string>,
  topLevel: readonly string[],
): string[] {
  const violations = topLevel
    .filter((name) => !TOP_LEVEL.has(name) && !IGNORED.has(name))
    .map((name) => `${name}: not an entry of the top level`);
  const imported = new Set<string>();
  for (const [path, source] of sources) {
    if (path.endsWith(".wgsl")) continue;
    for (const use of usesOf(path, source)) {
      const problem = use.kind === "import"
        ? importProblem(path, use.specifier, sources)
        : globalProblem(path, use.kind);
      if (problem) violations.push(`${path}: ${problem}`);
      imported.add(posix.join(posix.dirname(path), use.specifier));
    }
  }
  for (const path of sources.keys()) {
    if (path.endsWith(".wgsl") && !imported.has(path)) {
      violations.push(`${path}: no kernel imports it`);
    }
  }
  return violations;
}

/** Imports in every form, and uses of the globals that are not for every folder. */
function usesOf(path: string, source: string): Use[] {
  const uses: Use[] = [];
  const addImport = (node: Deno.lint.Expression | null | undefined): void => {
    if (!node) return;
    const known = node.type === "Literal" && typeof node.value === "string";
    uses.push({ kind: "import", specifier: known ? `${node.value}` : "?" });
  };
  const plugin: Deno.lint.Plugin = {
    name: "layering",
    rules: {
      uses: {
        create: () => ({
          ImportDeclaration: (node) => addImport(node.source),
          ExportAllDeclaration: (node) => addImport(node.source),
          ExportNamedDeclaration: (node) => addImport(node.source),
          ImportExpression: (node) => addImport(node.source),
          TSImportType: (node) => addImport(typeImportSource(node)),
          NewExpression: (node) => addImport(moduleUrl(node)),
          Identifier: ({ name, parent }) => {
            if (name === "console") {
              uses.push({ kind: "console", specifier: "" });
            }
            if (name !== "Deno") return;
            const exits = parent.type === "MemberExpression" &&
              parent.property.type === "Identifier" &&
              parent.property.name === "exit";
            uses.push({ kind: exits ? "Deno.exit" : "Deno", specifier: "" });
          },
        }),
      },
    },
  };
  Deno.lint.runPlugin(plugin, path, source);
  return uses;
}

function typeImportSource(
  { argument }: Deno.lint.TSImportType,
): Deno.lint.Expression | undefined {
  return argument.type === "TSLiteralType" &&
      argument.literal.type === "Literal"
    ? argument.literal
    : undefined;
}

/** The module that `new URL("./NAME.ts", import.meta.url)` names: how workers are started. */
function moduleUrl(
  { callee, arguments: [url] }: Deno.lint.NewExpression,
): Deno.lint.Expression | undefined {
  return callee.type === "Identifier" && callee.name === "URL" &&
      url?.type === "Literal" && /^\.\.?\/.*\.tsx?$/.test(`${url.value}`)
    ? url
    : undefined;
}

function importProblem(
  path: string,
  specifier: string,
  sources: ReadonlyMap<string, string>,
): string | undefined {
  if (specifier === "?") return "imports what only a run can tell";
  if (/^(jsr|npm|https?):/.test(specifier)) {
    return `imports "${specifier}" without an entry in deno.json`;
  }
  if (specifier.startsWith("node:")) {
    return isWebOnly(path)
      ? `imports "${specifier}" where only web APIs are allowed`
      : undefined;
  }
  if (!/^\.\.?\//.test(specifier)) return undefined; // a package
  const target = posix.join(posix.dirname(path), specifier);
  const from = layerOf(path);
  const to = layerOf(target);
  const allowed = to === from || MAY_IMPORT[from]?.includes(to) ||
    (from === "tests" && to !== "..");
  if (!allowed) return `may not import ${target}`;
  return target.endsWith(".wgsl")
    ? shaderProblem(path, target, sources)
    : undefined;
}

/** A shader belongs to the kernel of its name; one without such a kernel is a part that kernels share. */
function shaderProblem(
  path: string,
  target: string,
  sources: ReadonlyMap<string, string>,
): string | undefined {
  const owner = target.replace(/\.wgsl$/, ".ts");
  if (path === owner) return undefined;
  if (sources.has(owner)) return `may not import ${target}: ${owner} owns it`;
  return layerOf(path) === "kernels"
    ? undefined
    : `may not import ${target}: only kernels import shaders`;
}

function globalProblem(path: string, kind: Use["kind"]): string | undefined {
  const layer = layerOf(path);
  if (layer === "tests") return undefined;
  const mayPrint = layer === "bench" && kind === "console";
  if (kind === "Deno" || layer === "tasks" || mayPrint) {
    return kind === "Deno" && isWebOnly(path)
      ? "uses Deno where only web APIs are allowed"
      : undefined;
  }
  return `uses ${kind}: only tasks may`;
}

function isWebOnly(path: string): boolean {
  return WEB_FOLDERS.includes(layerOf(path)) && !EDGE_FILES.has(path);
}

/** The first part of a path from the root: a folder, a file of the top level, or `..` outside. */
function layerOf(path: string): string {
  return path.split("/")[0]!;
}
