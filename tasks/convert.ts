/**
 * Describes, checks and converts SAEs: `./ocs convert --sae DIR --to sparsify --out DIR`.
 * @module
 */
// deno-lint-ignore-file no-console
import { ResidualFolder } from "../core/residuals.ts";
import { Sae } from "../core/sae.ts";
import type { SaeFile } from "../core/sae_file.ts";
import { evaluateResiduals } from "../train/evaluate.ts";
import { openSae, runTask, type TaskContext } from "./cli.ts";
import { CONVERT_FLAGS, type ConvertFlags } from "./convert_flags.ts";
import {
  describeFit,
  describeSae,
  type Fit,
  judgeFit,
} from "./convert_report.ts";
import { planConversion } from "./convert_write.ts";
import { openFolder } from "./storage.ts";

/** Describes, checks and converts as the flags say; the exit code. */
async function convert(
  flags: ConvertFlags,
  context: TaskContext,
): Promise<number> {
  const sae = await openSae(flags.sae, flags.layer);
  const conversion = await planConversion(sae, flags);
  const residuals = await openResiduals(sae, flags);
  console.log(await describeSae(sae));
  if (residuals) {
    const fit = await check(sae, residuals, flags, context);
    if (!fit.fits) return 1;
  }
  if (conversion) console.log(`\n${await conversion(context)}`);
  return 0;
}

/** The residuals to check an SAE on; undefined without `--check`. */
async function openResiduals(
  sae: SaeFile,
  flags: ConvertFlags,
): Promise<ResidualFolder | undefined> {
  if (!flags.check && flags.residuals === undefined) return undefined;
  if (!flags.check || flags.residuals === undefined) {
    throw new TypeError(
      `Cannot check the SAE: expected both --check and --residuals: got ${
        flags.check ? "no --residuals" : "no --check"
      }`,
    );
  }
  const folder = await ResidualFolder.open(openFolder(flags.residuals));
  const { d_model } = folder.manifest.model;
  if (sae.d_model === d_model) return folder;
  throw new TypeError(
    `Cannot check SAE "${sae.name}" on residuals "${folder.name}": expected d_model ${d_model}: got ${sae.d_model}: give residuals of its model`,
  );
}

/** Measures an SAE on vectors, and prints what came out. */
async function check(
  sae: SaeFile,
  folder: ResidualFolder,
  flags: ConvertFlags,
  context: TaskContext,
): Promise<Fit> {
  const { d_model, d_sae, metadata, elsewhere } = sae;
  const trained = metadata.hookPoint ?? elsewhere ?? "no told hook point";
  const collected = folder.manifest.hookPoint ?? "no told hook point";
  if (trained !== collected) {
    context.note(
      `an SAE of ${trained} is measured on residuals of ${collected}`,
    );
  }
  const gpu = await context.openGpu(flags.gpu);
  context.plan([
    { what: "SAE", bytes: 4 * (2 * d_model * d_sae + d_model + d_sae) },
    { what: "1,024 vectors", bytes: 4 * 1024 * (d_sae + 3 * d_model) },
  ]);
  using weights = await Sae.load(gpu, sae);
  const rows = firstRows(folder, flags.vectors, context.signal);
  const evaluation = await evaluateResiduals(gpu, weights, rows);
  const fit = judgeFit(evaluation, d_sae);
  console.log(`\n${describeFit(evaluation, d_sae, fit)}`);
  return fit;
}

/** The first n vectors of a residual folder. */
async function* firstRows(
  folder: ResidualFolder,
  n: number,
  signal: AbortSignal,
): AsyncGenerator<Uint16Array<ArrayBuffer>> {
  let left = n;
  for await (const { rows, n_rows, d_model } of folder.batches()) {
    signal.throwIfAborted();
    const take = Math.min(left, n_rows);
    yield take === n_rows ? rows : rows.slice(0, take * d_model);
    left -= take;
    if (left === 0) return;
  }
}

if (import.meta.main) {
  await runTask({
    name: "convert",
    description:
      "Describes an SAE of any layout that is read, writes it in another, and checks that it fits residuals.",
    flags: CONVERT_FLAGS,
  }, convert);
}
