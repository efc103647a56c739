import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { importOcsConfig, ocsCode } from "../../train/import_ocs_config.ts";
import type { PythonValue } from "../../train/python_config.ts";

const CONFIG: Readonly<Record<string, PythonValue>> = {
  data_dir: "somewhere",
  input_size: 64,
  hidden_size: 512,
  batch_size: 128,
  learning_rate: 2e-4,
  num_epochs: 2,
  lambda_final: 8,
};

function importWith(
  changes: Record<string, PythonValue> = {},
  day = "9999-12-31",
): ReturnType<typeof importOcsConfig> {
  const config = new Map(Object.entries({ ...CONFIG, ...changes }));
  const facts = { code: ocsCode(day), inputScale: 0.5, nVectors: 1300 };
  return importOcsConfig(config, facts, "some.py");
}

/** Loss as its code computes it on acts `[B, F]` with W_dec rows of norm 1, and as ours: their ratio of L1 to error. */
function itsL1Weight(
  lambda: number,
  { B, F, d, isMean }: { B: number; F: number; d: number; isMean: boolean },
): number {
  const acts = Array.from({ length: B * F }, (_, i) => (i * 7 % 5) / 3);
  const err = Array.from({ length: B * d }, (_, i) => (i * 3 % 7) / 5);
  const sum = (values: number[]): number => values.reduce((a, b) => a + b, 0);
  const squares = sum(err.map((e) => e * e));
  // Shape [1, B, F]: .sum(1) over tokens gives [1, F], .mean() divides by F.
  const itsL1 = lambda * sum(acts) / F;
  const itsError = isMean ? squares / (B * d) : squares / B;
  const ourL1 = sum(acts) / B; // at λ = 1
  const ourError = squares / B;
  return itsL1 / itsError / (ourL1 / ourError);
}

Deno.test("importOcsConfig() gives the λ that weighs L1 against error as its code did", () => {
  const sizes = { B: 128, F: 512, d: 64 };
  const summed = itsL1Weight(8, { ...sizes, isMean: false });
  const averaged = itsL1Weight(8, { ...sizes, isMean: true });
  const close = (day: string, expected: number): void => {
    const got = importWith({}, day).flags["lambda"] as number;
    ok(Math.abs(got / expected - 1) < 1e-5, `${day}: ${got} for ${expected}`);
  };
  close("2025-10-03", 0.5 * summed); // inputs of another scale: λ' = s·λ
  close("2025-05-20", 0.5 * summed);
  close("2025-05-09", summed);
  close("2025-04-26", averaged);
  equal(importWith({}, "2025-03-19").flags["lambda"], 8 * 64);
  equal(importWith({ norm_factor: 0.5 }).flags["lambda"], 2);
});

Deno.test("importOcsConfig() keeps what means the same, counts steps, and says what it did", () => {
  const { flags, converted, ignored } = importWith({ lambda_warmup_pct: 0.3 });
  deepEqual(flags, {
    architecture: "relu",
    d_sae: 512,
    lambda: 1,
    lambda_warmup: 0.3,
    lr: 2e-4,
    lr_decay: 0.2,
    steps: 20,
    batch: 128,
    clip_norm: 1,
    beta1: 0.9,
    beta2: 0.999,
    moments: "q8",
    resample_every: 0,
  });
  const said = converted.join("\n");
  match(said, /batch_size\/hidden_size = 128\/512 fold: 8 · 0\.25 = 2$/m);
  match(said, /λ' = s·λ: 2 · 0\.5 = 1$/m);
  match(said, /steps = .* = 2 · floor\(1300 \/ 128\) = 20$/m);
  deepEqual(ignored.map((line) => line.split(":")[0]), [
    "data_dir",
    "input_size",
  ]);
  ok(!said.includes("--code-date"));
  match(
    importWith({ lambda_final: 0.01 }).converted.join("\n"),
    /hardly makes an SAE sparse.*see --code-date/,
  );
});

Deno.test("importOcsConfig() turns resampling steps into an interval and an end", () => {
  const { flags } = importWith({
    use_resampling: true,
    resample_steps: [5, 10],
    tracking_window: 3,
  });
  const { resample_every, resample_until, dead_after } = flags;
  deepEqual([resample_every, resample_until, dead_after], [5, 0.5, 384]);
  throws(
    () => importWith({ use_resampling: true, resample_steps: [5, 11] }),
    /expected resample_steps at equal distances.*got \[5,11\]: set resample_every/,
  );
  const off = importWith({ tracking_window: 3 });
  equal(off.flags["resample_every"], 0);
  match(off.ignored.join("\n"), /^tracking_window: use_resampling is not on$/m);
});

Deno.test("importOcsConfig() refuses what it does not know or lacks, by its key", () => {
  throws(
    () => importWith({ hiden_size: 5 }),
    /^RangeError: Cannot read "some\.py": open-concept-steering has no setting "hiden_size": did you mean "hidden_size"\?$/,
  );
  throws(
    () => importWith({ batch_size: "many" }),
    /expected batch_size to be a number of at least 1: got "many"/,
  );
  throws(
    () => importWith({ lambda_final: null }),
    /expected lambda_final to be a number of at least 0: got nothing/,
  );
  throws(() => ocsCode("2025-03-01"), /expected a day from 2025-03-18/);
  throws(() => ocsCode("May 2025"), /expected a day from/);
});
