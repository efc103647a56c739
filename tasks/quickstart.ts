/**
 * `quickstart`: the whole road once, from text to a steered model.
 * @module
 */
// deno-lint-ignore-file no-console
import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  claimOutputFolder,
  directory,
  fingerprint,
  writeAtomic,
  writeManifest,
} from "../core/files.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { Olmo2 } from "../core/olmo2.ts";
import { Sae } from "../core/sae.ts";
import { SaeFile } from "../core/sae_file.ts";
import { readJson } from "../core/source.ts";
import { checkSaeFits } from "../core/sae_fit.ts";
import type { Gpu } from "../gpu/mod.ts";
import { conceptLabels, writeLabels } from "../steer/labels.ts";
import {
  GPU_FLAGS,
  openModel,
  repoPath,
  runStage,
  runTask,
  SEED_FLAG,
  type TaskContext,
  userPath,
} from "./cli.ts";
import { COLLECT, collectTask } from "./collect.ts";
import {
  type ConceptTable,
  findFeatures,
  steerConcepts,
  type SteeredModel,
} from "./concept_table.ts";
import { EVAL, evalTask } from "./eval.ts";
import type { EvalReport } from "./eval_report.ts";
import { formatDuration, formatTable } from "./format.ts";
import {
  evaluationRows,
  type QuickstartReport,
  reportPage,
  type ReportStep,
} from "./quickstart_report.ts";
import { localStore } from "./local_store.ts";
import { STORYBOOK, storybookTask } from "./storybook.ts";
import { TRAIN, trainTask } from "./train.ts";

const FLAGS = {
  documents: {
    default: 1200,
    integer: true,
    min: 200,
    help: "storybook documents to collect from",
  },
  steps: { default: 1200, integer: true, min: 10, help: "training steps" },
  questions: {
    default: 6,
    integer: true,
    min: 3,
    max: 40,
    help: "questions that strengths are chosen on; as many others measure",
  },
  out: {
    type: "string",
    help: "folder to write; out/quickstart of this repo without it",
  },
  // Stages take seeds of their own, up to a few hundred thousand above it.
  seed: { ...SEED_FLAG.seed, default: 101, max: 2 ** 31 },
  ...GPU_FLAGS,
} as const satisfies FlagTable;

type Flags = ConfigOf<typeof FLAGS>;

/** Documents that features are chosen on; of a seed that was not collected from. */
const FIND_DOCUMENTS = 300;
/** Documents that cross-entropies are measured on, of another seed again. */
const LOSS_DOCUMENTS = 40;

/** Times stages. */
class Stopwatch {
  readonly stages: { stage: string; seconds: number }[] = [];

  async time<T>(stage: string, run: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const result = await run();
    this.stages.push({ stage, seconds: (performance.now() - start) / 1000 });
    return result;
  }

  get seconds(): number {
    return this.stages.reduce((sum, { seconds }) => sum + seconds, 0);
  }
}

async function quickstart(flags: Flags, context: TaskContext): Promise<void> {
  const out = flags.out === undefined
    ? repoPath("out/quickstart")
    : userPath(flags.out);
  const { out: _, gpu: wanted, ...settings } = flags;
  const gpu = await context.openGpu(wanted);
  const id = await fingerprint(settings);
  await using _lock = await (await localStore(out)).lock("all");
  const before = await claimOutputFolder(out, "quickstart", id);
  if (before?.["done"] === true) {
    context.note("complete already");
    return await printAgain(out);
  }
  const watch = new Stopwatch();
  const evaluation = await textToSae(out, flags, context, watch);
  using owned = new DisposableStack();
  const steered = await openSteered(gpu, join(out, "sae"), owned);
  const find = { nDocuments: FIND_DOCUMENTS, seed: flags.seed + 1 };
  const scores = await watch.time(
    "find",
    () => findFeatures(steered, find, context),
  );
  await writeLabels(
    async (file, content) => await writeAtomic(join(out, "sae", file), content),
    conceptLabels(scores),
  );
  const table = await watch.time("steer", () => {
    return steerConcepts(steered, scores, {
      seed: flags.seed,
      nQuestions: flags.questions,
    }, context);
  });
  const density = await steered.saeFile.logDensity() ?? [];
  const report: QuickstartReport = {
    gpu: gpu.name,
    command:
      `./ocs quickstart --seed ${flags.seed} --documents ${flags.documents} --steps ${flags.steps} --questions ${flags.questions}`,
    seconds: watch.seconds,
    stages: watch.stages,
    evaluation: evaluationRows(evaluation),
    steps: await readSteps(join(out, "sae", "metrics.jsonl")),
    logDensity: [...density].filter((value) => Number.isFinite(value)),
    ...table,
  };
  await writeAtomic(
    join(out, "report.json"),
    `${JSON.stringify(report, null, 2)}\n`,
  );
  await writeAtomic(join(out, "report.html"), reportPage(report));
  await writeManifest(out, { kind: "quickstart", fingerprint: id, done: true });
  printResult(report, out);
}

/** Prints what a complete run found. */
async function printAgain(out: string): Promise<void> {
  const source = await directory(out).open("report.json");
  // Written by this task, whole, before the manifest said that it is complete.
  const report = await readJson(source) as QuickstartReport;
  const { evaluation } = report;
  console.log(
    formatTable(
      ["measure", "value", "meaning"],
      evaluation.map(({ measure, value, meaning }) => [
        measure,
        value,
        meaning,
      ]),
    ),
  );
  printResult(report, out);
}

function printResult(report: QuickstartReport, out: string): void {
  printConcepts(report);
  console.log(
    `\n${formatDuration(1000 * report.seconds)} in all; the report: ${
      join(out, "report.html")
    }`,
  );
  console.log(`next: ./ocs chat --sae ${join(out, "sae")} --steer baseball=2x`);
}

/** The first stages, as a person would type them. */
async function textToSae(
  out: string,
  flags: Flags,
  context: TaskContext,
  watch: Stopwatch,
): Promise<EvalReport> {
  const { documents, seed, steps, gpu } = flags;
  const [corpus, residuals, sae] = [
    join(out, "corpus.jsonl"),
    join(out, "residuals"),
    join(out, "sae"),
  ];
  if (!existsSync(corpus)) { // else a run that was stopped wrote it, whole
    const write = argv({ docs: documents, seed, out: corpus });
    await watch.time(
      "storybook",
      () => runStage(STORYBOOK, storybookTask, write, context),
    );
  }
  const collect = argv({ text: corpus, out: residuals, gpu });
  await watch.time(
    "collect",
    () => runStage(COLLECT, collectTask, collect, context),
  );
  // Small batches and a high rate: most of what the full recipe reaches, in a third of its time.
  const recipe = { batch: 256, lr: 0.002, steps };
  const train = argv({ residuals, ...recipe, out: sae, gpu, autotune: "off" });
  await watch.time("train", () => runStage(TRAIN, trainTask, train, context));
  const text = `storybook:${seed + 2}:${LOSS_DOCUMENTS}`;
  const evaluate = argv({ sae, residuals, last: 8192, text, gpu });
  return await watch.time(
    "eval",
    () => runStage(EVAL, evalTask, evaluate, context),
  );
}

/** Flags as they are typed; undefined ones are left out. */
function argv(
  flags: Readonly<Record<string, string | number | undefined>>,
): string[] {
  return Object.entries(flags).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, `${value}`]
  );
}

async function openSteered(
  gpu: Gpu,
  saeFolder: string,
  owned: DisposableStack,
): Promise<SteeredModel> {
  const folder = await openModel(undefined);
  const saeFile = await SaeFile.open(directory(saeFolder));
  const hookPoint = checkSaeFits(saeFile, folder);
  const model = owned.use(
    await Olmo2.load(gpu, folder.checkpoint, folder.config),
  );
  const sae = owned.use(await Sae.load(gpu, saeFile));
  return { folder, model, saeFile, sae, hookPoint };
}

async function readSteps(path: string): Promise<ReportStep[]> {
  const lines = (await Deno.readTextFile(path)).trimEnd().split("\n");
  return lines.map((line) => {
    const { step, loss, L0, fvu } = JSON.parse(line);
    return { step, loss, L0, fvu };
  });
}

function printConcepts({ unsteered, concepts, samples }: ConceptTable): void {
  const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
  const rows = concepts.map((
    { concept, feature, f1, strength, rate, perplexity },
  ) => [
    concept,
    `${feature}`,
    f1.toFixed(3),
    `${strength}x`,
    percent(rate),
    perplexity.toFixed(2),
  ]);
  const mean = (values: readonly number[]) =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  rows.push([
    "mean",
    "",
    mean(concepts.map(({ f1 }) => f1)).toFixed(3),
    "",
    percent(mean(concepts.map(({ rate }) => rate))),
    mean(concepts.map(({ perplexity }) => perplexity)).toFixed(2),
  ]);
  rows.push([
    "unsteered",
    "",
    "",
    "",
    percent(unsteered.rate),
    unsteered.perplexity.toFixed(2),
  ]);
  console.log(
    `\n${
      formatTable([
        "concept",
        "feature",
        "F1",
        "strength",
        "steered rate",
        "perplexity",
      ], rows)
    }`,
  );
  for (const { question, replies } of samples) {
    const width = Math.max(...replies.map(({ steering }) => steering.length));
    console.log(`\n${question}`);
    for (const { steering, text } of replies) {
      console.log(`  ${steering.padEnd(width)}  ${text}`);
    }
  }
}

if (import.meta.main) {
  await runTask({
    name: "quickstart",
    description:
      "The whole road once, on real kernels: text, residuals, a trained SAE, its features, and the model steered by them.",
    afterInterrupt: "the same command goes on where it stopped",
    flags: FLAGS,
  }, quickstart);
}
