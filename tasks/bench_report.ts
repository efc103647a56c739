/**
 * What the bench prints.
 * @module
 */
import type { Ceilings } from "./bench_ceilings.ts";
import type { QuantizationError } from "./bench_errors.ts";
import type { SteeringCost } from "./bench_steering.ts";
import type { Rate } from "./bench_timing.ts";
import { formatRate, formatTable } from "./format.ts";

/** Everything that was measured. */
export interface Measurements {
  /** The adapter's name. */
  readonly gpu: string;
  /** How kernels were timed. */
  readonly timing: string;
  readonly ceilings: Ceilings;
  readonly rates: readonly Rate[];
  readonly steering: SteeringCost;
  /** What quantization changes; empty where it was not asked. */
  readonly errors: readonly QuantizationError[];
}

/** A rate with its shares of the adapter's ceilings, in percent. */
export interface ReportedRate extends Rate {
  /** Of the speed that a kernel reads with. */
  readonly percentOfRead?: number;
  /** Of the speed that a kernel multiplies and adds with. */
  readonly percentOfCompute?: number;
}

/** Measurements with shares. */
export interface Report extends Measurements {
  readonly rates: readonly ReportedRate[];
}

/** Sets rates beside the ceilings. */
export function reportOf(measurements: Measurements): Report {
  const { readGbPerS, gflopPerS: most } = measurements.ceilings;
  const rates = measurements.rates.map((rate): ReportedRate => {
    const { gbPerS, gflopPerS } = rate;
    return {
      ...rate,
      ...(gbPerS !== undefined && { percentOfRead: 100 * gbPerS / readGbPerS }),
      ...(gflopPerS !== undefined && {
        percentOfCompute: 100 * gflopPerS / most,
      }),
    };
  });
  return { ...measurements, rates };
}

/** How to read the tables. */
const LEGEND =
  `GB/s: bytes of weights, each counted once a pass. GFLOP/s: multiplications and additions with weights.
% of read, % of compute: shares of the ceilings. × 1 row: times as long as with one row.
Processor, on a software driver: time of all threads divided by the processors, which other load changes less; the rest is by the time that passes.
Decoding is timed by the clock, from step to step; the rest as the first line says, and the least of some times counts.`;

/** A report for people. */
export function textOf(report: Report): string {
  const { gpu, timing, ceilings, rates, steering, errors } = report;
  const sections = [...new Set(rates.map(({ section }) => section))];
  return [
    `${gpu}, timed by ${timing}`,
    "",
    formatTable(["the most this adapter does", "", ""], [
      ["reading, 16 bytes a load", formatRate(ceilings.readGbPerS), "GB/s"],
      ["copying by a kernel", formatRate(ceilings.copyGbPerS), "GB/s"],
      ["copying a buffer", formatRate(ceilings.bufferCopyGbPerS), "GB/s"],
      ["f32 in registers", formatRate(ceilings.gflopPerS), "GFLOP/s"],
      ["reading 4 bytes back", formatRate(ceilings.readbackMs), "ms"],
    ]),
    ...sections.flatMap((section) => [
      "",
      tableOf(section, rates.filter((rate) => rate.section === section)),
    ]),
    "",
    `steering ${steering.nFeatures} features at a block of 7B, decoding one row: ${
      steering.percent.toFixed(2)
    } % more time (${steering.plainMs.toFixed(2)} ms, steered ${
      steering.steeredMs.toFixed(2)
    } ms${
      steering.cpuPercent === undefined
        ? ""
        : `; processor ${steering.cpuPercent.toFixed(2)} %`
    })${
      steering.kernelPercent === undefined
        ? ""
        : `; its kernel takes ${
          steering.kernelPercent.toFixed(2)
        } % of the others' time`
    }`,
    ...errors.length === 0 ? [] : ["", errorTable(errors)],
    "",
    LEGEND,
  ].join("\n");
}

function errorTable(errors: readonly QuantizationError[]): string {
  return formatTable(
    ["7B, relative error against bf16", "", ""],
    errors.map((
      { what, type, relative },
    ) => [what, type, `${(100 * relative).toFixed(2)} %`]),
  );
}

function tableOf(section: string, rates: readonly ReportedRate[]): string {
  const cell =
    (digits: number, of: (rate: ReportedRate) => number | undefined) =>
    (rate: ReportedRate): string => of(rate)?.toFixed(digits) ?? "";
  const columns: [string, (rate: ReportedRate) => string][] = [
    [section, ({ what }) => what],
    ["ms", cell(2, ({ ms }) => ms)],
    ["processor", cell(2, ({ cpuMs }) => cpuMs)],
    ["rate", ({ rate }) => formatRate(rate)],
    ["", ({ unit }) => unit],
    ["GB/s", cell(2, ({ gbPerS }) => gbPerS)],
    ["% of read", cell(0, ({ percentOfRead }) => percentOfRead)],
    ["GFLOP/s", cell(1, ({ gflopPerS }) => gflopPerS)],
    ["% of compute", cell(0, ({ percentOfCompute }) => percentOfCompute)],
    ["× 1 row", cell(2, ({ ofOneRow }) => ofOneRow)],
    ["processor", cell(2, ({ cpuOfOneRow }) => cpuOfOneRow)],
  ];
  const filled = columns.filter(([, cellOf]) =>
    rates.some((rate) => cellOf(rate) !== "")
  );
  return formatTable(
    filled.map(([heading]) => heading),
    rates.map((rate) => filled.map(([, cellOf]) => cellOf(rate))),
  );
}
