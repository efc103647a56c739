/**
 * `bench-rivals`: our products and training steps beside those of other libraries,
 * measured in one run on one adapter.
 * @module
 */
// deno-lint-ignore-file no-console
import { GPU_FLAGS, runTask, SEED_FLAG, userPath } from "../tasks/cli.ts";
import { formatTable } from "../tasks/format.ts";
import { cells, formatMs, isMet } from "./compare.ts";
import { JaxSides } from "./jax.ts";
import { measureMatvec } from "./measure_matvec.ts";
import {
  type Bench,
  measureProduct,
  measureStep,
  measureWide,
  type Result,
  SIZES,
  TINY_SIZES,
} from "./measures.ts";
import {
  HOW_TO_INSTALL,
  type PackageName,
  PACKAGES,
  Rivals,
  type RivalSides,
} from "./rivals.ts";
import { TfjsSides } from "./tfjs.ts";

/** All measures, by the name that `--only` takes. */
const MEASURES: Readonly<Record<string, (bench: Bench) => Promise<Result>>> = {
  product: measureProduct,
  step: measureStep,
  wide: measureWide,
  "matvec-down": (bench) => measureMatvec(bench, bench.sizes.matvec[0]),
  "matvec-up": (bench) => measureMatvec(bench, bench.sizes.matvec[1]),
};

/** How to read the tables. */
const LEGEND =
  `wall: time of one run, of which "a wait" many are done without waiting in between; value: from wall times
ratios and shares: the median over the turns, in which all sides are timed one after the other
processor: processor time of all threads, and the value from it: what else the machine does changes it less
other libraries, where they are not installed: ${HOW_TO_INSTALL}
PyTorch, where it is not named: --torch python3, with the package torch`;

/** The other libraries that are installed, with devices of their own. */
async function openRivals(
  folder: Rivals,
  adapter: string,
  owned: DisposableStack,
): Promise<RivalSides[]> {
  const opened: RivalSides[] = [];
  if (folder.version("@jax-js/jax") !== undefined) {
    opened.push(owned.use(await JaxSides.open(folder, adapter)));
  }
  const needed = ["@tensorflow/tfjs", "@tensorflow/tfjs-backend-webgpu"];
  const hasTfjs = needed.every((name) =>
    folder.version(name as PackageName) !== undefined
  );
  if (hasTfjs) {
    opened.push(owned.use(await TfjsSides.open(folder, adapter)));
  }
  return opened;
}

/** Targets are of the full sizes. */
function withoutTargets(result: Result): Result {
  const comparisons = result.comparisons.map((comparison) => ({
    ...comparison,
    target: undefined,
  }));
  return { ...result, comparisons };
}

/** Versions of everything that took part. */
function versionsOf(
  folder: Rivals | undefined,
  results: readonly Result[],
): Record<string, string> {
  const versions: Record<string, string> = { ...Deno.version };
  for (const name of Object.keys(PACKAGES) as PackageName[]) {
    versions[name] = folder?.version(name) ?? "not installed";
  }
  versions["PyTorch"] = results.find(({ torch }) => torch)?.torch ??
    "did not take part";
  return versions;
}

function print(
  head: Readonly<Record<string, string>>,
  results: readonly Result[],
): void {
  for (const [what, value] of Object.entries(head)) {
    console.log(`${what}: ${value}`);
  }
  const times = results.flatMap(({ measure, sides }) =>
    sides.map(({ name, wallMs, cpuMs, samples, runs }) => {
      const walls = samples.map((sample) => sample.wallMs);
      const range = [Math.min(...walls), Math.max(...walls)];
      return [
        measure,
        name,
        formatMs(wallMs),
        range.map(formatMs).join(" to "),
        formatMs(cpuMs),
        `${runs}`,
      ];
    })
  );
  console.log();
  console.log(
    formatTable(
      ["measure", "side", "wall, median", "wall, range", "processor", "a wait"],
      times,
    ),
  );
  console.log();
  console.log(
    formatTable(
      ["measure", "ours", "other", "value", "processor", "target", ""],
      results.flatMap(({ comparisons }) => comparisons.map(cells)),
    ),
  );
  console.log();
  console.log(LEGEND);
}

if (import.meta.main) {
  await runTask({
    name: "bench-rivals",
    description:
      "how fast products, training steps and products of decoding are beside those of other libraries, in one run",
    flags: {
      rivals: {
        type: "string",
        help: `folder whose node_modules holds ${
          Object.keys(PACKAGES).join(", ")
        }`,
      },
      torch: {
        type: "string",
        help: "Python interpreter with PyTorch, such as python3",
      },
      only: {
        type: "strings",
        help: `measures to take: ${
          Object.keys(MEASURES).join(", ")
        }; all without it`,
      },
      repeats: {
        default: 5,
        integer: true,
        min: 1,
        help: "samples of each side; their median counts",
      },
      sample: {
        default: 2,
        min: 0,
        help: "least duration of a sample",
        unit: "seconds",
      },
      tiny: {
        default: false,
        help: "sizes that take no time: only to see whether everything runs",
      },
      json: { default: false, help: "print JSON" },
      ...SEED_FLAG,
      ...GPU_FLAGS,
    },
  }, async (config, context) => {
    for (const name of config.only) {
      if (Object.hasOwn(MEASURES, name)) continue;
      throw new RangeError(
        `Cannot measure "${name}": expected one of ${
          Object.keys(MEASURES).join(", ")
        }`,
      );
    }
    const gpu = await context.openGpu(config.gpu);
    const folder = config.rivals === undefined
      ? undefined
      : new Rivals(userPath(config.rivals));
    using owned = new DisposableStack();
    const nCores = navigator.hardwareConcurrency;
    const bench: Bench = {
      gpu,
      sizes: config.tiny ? TINY_SIZES : SIZES,
      timing: { repeats: config.repeats, sampleMs: 1000 * config.sample },
      seed: config.seed,
      rivals: folder ? await openRivals(folder, gpu.name, owned) : [],
      torch: config.torch,
      nCores,
      note: context.note,
    };
    const results: Result[] = [];
    for (const [name, measure] of Object.entries(MEASURES)) {
      context.signal.throwIfAborted();
      if (config.only.length > 0 && !config.only.includes(name)) continue;
      const result = await measure(bench);
      results.push(config.tiny ? withoutTargets(result) : result);
    }
    const versions = versionsOf(folder, results);
    const command = ["deno task bench-rivals", ...Deno.args].join(" ");
    if (config.json) {
      const judged = results.map((result) => ({
        ...result,
        comparisons: result.comparisons.map((comparison) => ({
          ...comparison,
          value: comparison.value ?? null,
          met: isMet(comparison) ?? null,
        })),
      }));
      const report = {
        gpu: gpu.name,
        cores: nCores,
        versions,
        command,
        results: judged,
      };
      return console.log(JSON.stringify(report, null, 2));
    }
    print({
      GPU: gpu.name,
      cores: `${nCores}`,
      versions: Object.entries(versions).map((pair) => pair.join(" ")).join(
        ", ",
      ),
      command,
    }, results);
  });
}
