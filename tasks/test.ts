/**
 * Runs the suite on one Vulkan driver or several, and adds up:
 * `./ocs test [--driver DRIVERS] [arguments of deno test]`.
 * @module
 */
// deno-lint-ignore-file no-console
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

const HELP =
  `usage: ./ocs test [--driver DRIVERS] [files and flags of deno test]

  --driver default      the driver that the Vulkan loader finds (what runs without --driver)
  --driver swiftshader  SwiftShader, from an installed Chromium or Chrome
  --driver FILE.json    the driver of that manifest
  --driver all          default,swiftshader; so any list with commas

Files are relative to the repository. Without files and flags the suite runs in two
processes at once. The last line is "N passed, N failed".`;

const ROOT = dirname(import.meta.dirname!);

/** Where runs make their temporary folders, so that the task needs to write nowhere else. */
const SCRATCH = join(ROOT, ".deno");

/** Where Chromium's packages put SwiftShader's manifest. */
const SWIFTSHADER_MANIFESTS = [
  "/usr/lib/chromium/vk_swiftshader_icd.json",
  "/usr/lib64/chromium-browser/vk_swiftshader_icd.json",
  "/opt/google/chrome/vk_swiftshader_icd.json",
];

/** How many tests a run had; steps belong to their test. */
export interface TestCounts {
  /** Tests that ran and passed. */
  readonly nPassed: number;
  /** Tests that ran and failed. */
  readonly nFailed: number;
}

/**
 * Counts the tests of a JUnit report as `deno test` writes it, where a step is
 * a test case named `TEST > STEP`.
 */
export function countTests(junit: string): TestCounts {
  let nPassed = 0;
  let nFailed = 0;
  for (const suite of junit.split("<testsuite ").slice(1)) {
    const tests = new Set<string>();
    const cases = suite.matchAll(
      /<testcase name="([^"]*)"[^>]*>(.*?)<\/testcase>/gs,
    );
    for (const [, name = "", body = ""] of cases) {
      if (isStep(name, tests)) continue;
      tests.add(name);
      if (body.includes("<failure")) nFailed++;
      else if (!body.includes("<skipped")) nPassed++;
    }
  }
  return { nPassed, nFailed };
}

/** Whether a name is `TEST > STEP` for one of the tests already met. */
function isStep(name: string, tests: ReadonlySet<string>): boolean {
  const separator = " &gt; ";
  for (
    let end = name.indexOf(separator);
    end >= 0;
    end = name.indexOf(separator, end + 1)
  ) {
    if (tests.has(name.slice(0, end))) return true;
  }
  return false;
}

/**
 * The manifests that a `--driver` value stands for; `undefined` leaves the choice to the Vulkan loader.
 * @throws {Error} If SwiftShader or a named manifest is not on this machine.
 */
export function driverManifests(drivers: string): (string | undefined)[] {
  const names = drivers === "all" ? "default,swiftshader" : drivers;
  return names.split(",").map((name) => {
    if (name === "default") return undefined;
    const candidates = name === "swiftshader"
      ? SWIFTSHADER_MANIFESTS
      : [resolve(Deno.env.get("INIT_CWD") ?? ".", name)];
    const manifest = candidates.find((path) => existsSync(path));
    if (manifest !== undefined) return manifest;
    throw new Error(
      `Cannot test on driver "${name}": expected the manifest ${
        candidates.join(" or ")
      }: got no such file${
        name === "swiftshader" ? "; install Chromium or name one" : ""
      }`,
    );
  });
}

/** Most tests and their drivers leave a core idle half of the time. */
const PROCESSES = 2;

/**
 * Runs the suite on one driver. Without arguments its files are dealt to several
 * processes; the first one's output is shown as it comes, the others' after it.
 */
async function runOn(
  manifest: string | undefined,
  testArguments: readonly string[],
): Promise<TestCounts> {
  const parts = testArguments.length > 0
    ? [testArguments]
    : dealt(testFiles(join(ROOT, "tests")).sort(), PROCESSES);
  const runs = await Promise.all(
    parts.map((part, i) => runProcess(manifest, part, { isLive: i === 0 })),
  );
  for (const bytes of runs.flatMap(({ output }) => output)) {
    await new Blob([bytes]).stream().pipeTo(Deno.stdout.writable, {
      preventClose: true,
    });
  }
  return {
    nPassed: runs.reduce((sum, { nPassed }) => sum + nPassed, 0),
    nFailed: runs.reduce((sum, { nFailed }) => sum + nFailed, 0),
  };
}

/** Every file of tests in a folder and those inside it. */
function testFiles(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = join(folder, name);
    if (isDirectory) return testFiles(path);
    return name.endsWith("_test.ts") ? [path] : [];
  });
}

/** Deals items out, one to each of n hands in turn. */
export function dealt<T>(items: readonly T[], n: number): T[][] {
  const hands = Array.from(
    { length: n },
    (_, hand) => items.filter((_, i) => i % n === hand),
  );
  return hands.filter((hand) => hand.length > 0);
}

/** Runs `deno test` once, where tests may write to one temporary folder only. */
async function runProcess(
  manifest: string | undefined,
  testArguments: readonly string[],
  { isLive }: { readonly isLive: boolean },
): Promise<
  TestCounts & { readonly output: readonly Uint8Array<ArrayBuffer>[] }
> {
  await Deno.mkdir(SCRATCH, { recursive: true });
  const scratch = await Deno.makeTempDir({ dir: SCRATCH, prefix: "test-" });
  try {
    const report = join(scratch, "junit.xml");
    const child = new Deno.Command("deno", {
      args: [
        "test",
        `--junit-path=${report}`,
        `--allow-read=${ROOT}`,
        `--allow-write=${scratch}`,
        "--allow-env",
        "--allow-run=deno,/bin/sh",
        "--allow-sys=hostname",
        "--allow-net=127.0.0.1",
        ...testArguments,
      ],
      cwd: ROOT,
      env: {
        TMPDIR: scratch,
        // Loaders before 1.3.207 know the second name only.
        ...(manifest && {
          VK_DRIVER_FILES: manifest,
          VK_ICD_FILENAMES: manifest,
        }),
      },
      stdin: "null",
      stdout: isLive ? "inherit" : "piped",
      stderr: isLive ? "inherit" : "piped",
    }).spawn();
    const output = isLive ? [] : await Promise.all([
      new Response(child.stdout).bytes(),
      new Response(child.stderr).bytes(),
    ]);
    const { code } = await child.status;
    const counts = existsSync(report)
      ? countTests(await Deno.readTextFile(report))
      : { nPassed: 0, nFailed: 0 };
    // A file that does not load, or fails outside of its tests, is in no report.
    const nFailed = code !== 0 && counts.nFailed === 0 ? 1 : counts.nFailed;
    return { ...counts, nFailed, output };
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

/** Takes `--driver` out of the arguments; the others are for `deno test`. */
export function splitArguments(
  args: readonly string[],
): { drivers: string; testArguments: string[] } {
  const testArguments: string[] = [];
  let drivers = "default";
  for (let i = 0; i < args.length; i++) {
    const [flag, value] = args[i]!.split(/=(.*)/s, 2);
    if (flag !== "--driver") {
      testArguments.push(args[i]!);
      continue;
    }
    drivers = value ?? args[++i] ?? "";
    if (drivers === "") {
      throw new TypeError(
        `Cannot read --driver: expected default, swiftshader, all or a file: got nothing`,
      );
    }
  }
  return { drivers, testArguments };
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    console.log(HELP);
    return 0;
  }
  const { drivers, testArguments } = splitArguments(args);
  let nPassed = 0;
  let nFailed = 0;
  let ranOnEach = true;
  for (const manifest of driverManifests(drivers)) {
    console.log(`Vulkan driver: ${manifest ?? "default"}`);
    const counts = await runOn(manifest, testArguments);
    ranOnEach &&= counts.nPassed + counts.nFailed > 0;
    nPassed += counts.nPassed;
    nFailed += counts.nFailed;
  }
  if (!ranOnEach) console.error("Cannot pass: expected tests to run: got none");
  console.log(`${nPassed} passed, ${nFailed} failed`);
  return nFailed === 0 && ranOnEach ? 0 : 1;
}

if (import.meta.main) {
  try {
    Deno.exit(await main(Deno.args));
  } catch (cause) {
    console.error(cause instanceof Error ? cause.message : cause);
    Deno.exit(1);
  }
}
