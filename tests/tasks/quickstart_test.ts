/** The whole road once, as short as it goes; what it finds is not the claim here. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CONCEPTS } from "../../core/storybook.ts";
import { readManifest } from "../../core/files.ts";
import { runTask, scratchFolder, startTask } from "./run_task.ts";

const SMALL = ["--documents=200", "--steps=20", "--questions=3"];

/** Every number in a JSON value. */
function* numbersOf(json: unknown): Generator<unknown> {
  if (typeof json === "object" && json !== null) {
    for (const value of Object.values(json)) yield* numbersOf(value);
  } else if (typeof json === "number" || json === null) yield json;
}

/** Starts quickstart, and stops it when it has begun to collect; its exit code and last line. */
async function stopped(
  cwd: string,
  signal: "SIGINT" | "SIGKILL",
): Promise<[code: number, lastLine: string | undefined]> {
  const child = startTask(["quickstart", ...SMALL, "--out=q"], { cwd });
  const output = child.output();
  const begun = join(cwd, "q/residuals/manifest.json");
  for (let waited = 0; waited < 60_000 && !existsSync(begun); waited += 2) {
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  // Else there was no time before: it was there from the run that was stopped first.
  await new Promise((resolve) => setTimeout(resolve, 500));
  child.kill(signal);
  const { code, stderr } = await output;
  const lines = new TextDecoder().decode(stderr).trimEnd().split("\n");
  return [code, lines.at(-1)];
}

Deno.test("quickstart goes the whole road, though it was stopped and killed on the way", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  deepEqual(await stopped(cwd, "SIGINT"), [
    130,
    "stopped by Ctrl-C: the same command goes on where it stopped",
  ]);
  equal((await stopped(cwd, "SIGKILL"))[0], 137);
  equal((await readManifest(join(cwd, "q")))["done"], undefined);
  const run = await runTask(["quickstart", ...SMALL, "--out=q"], { cwd });
  equal(run.code, 0, run.stderr);
  equal((await readManifest(join(cwd, "q")))["done"], true);
  checkOutput(run.stdout);
  checkReport(join(cwd, "q"));
  const again = await runTask(["quickstart", ...SMALL, "--out=q"], { cwd });
  equal(again.code, 0, again.stderr);
  match(again.stderr, /^complete already$/m);
  const table = run.stdout.slice(run.stdout.indexOf("concept    feature"));
  ok(again.stdout.endsWith(table), again.stdout);
  const other = await runTask(
    ["quickstart", ...SMALL, "--out=q", "--seed=5"],
    { cwd },
  );
  equal(other.code, 1);
  equal(other.stdout, "");
  match(
    other.stderr,
    /^error: Cannot write to ".*q": .*got a quickstart run of another configuration: choose another folder with --out$/m,
  );
  const names = Array.from(Deno.readDirSync(join(cwd, "q")), (e) => e.name);
  deepEqual(names.sort(), [
    "corpus.jsonl",
    "manifest.json",
    "report.html",
    "report.json",
    "residuals",
    "sae",
  ]);
});

function checkOutput(stdout: string): void {
  for (const measure of ["FVU", "L0", "dead", "recovered"]) {
    match(stdout, new RegExp(`^${measure} +\\d`, "m"));
  }
  for (const { concept } of CONCEPTS) {
    match(
      stdout,
      new RegExp(
        `^${concept} +\\d+ +\\d\\.\\d{3} +[\\d.]+x +\\d+ % +\\d+\\.\\d\\d$`,
        "m",
      ),
    );
  }
  match(stdout, /^unsteered +\d+ % +\d+\.\d\d$/m);
  for (const steering of ["unsteered", "batman", "japan", "baseball"]) {
    const samples = stdout.match(new RegExp(`^ {2}${steering} +\\S`, "gm"));
    equal(samples?.length, 3, steering);
  }
  match(stdout, /^next: \.\/ocs chat --sae .*\/q\/sae --steer baseball=2x\n$/m);
}

function checkReport(folder: string): void {
  const page = Deno.readTextFileSync(join(folder, "report.html"));
  const addresses = page.replaceAll("http://www.w3.org/2000/svg", "");
  ok(!/https?:|<script|<link|<img/.test(addresses), "opens without a network");
  equal(page.split("<svg").length - 1, 4);
  const report = JSON.parse(
    Deno.readTextFileSync(join(folder, "report.json")),
  );
  equal(report.concepts.length, CONCEPTS.length);
  equal(report.samples.length, 3);
  ok(report.steps.length >= 3 && report.logDensity.length > 100);
  // JSON has null for a number that is not finite.
  for (const number of numbersOf(report)) ok(Number.isFinite(number));
}
