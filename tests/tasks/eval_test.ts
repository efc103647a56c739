import { deepEqual, equal, match, ok } from "node:assert/strict";
import { join } from "node:path";
import { directory, writeAtomic } from "../../core/files.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { safetensorsChunks } from "../../core/safetensors.ts";
import { runTask, scratchFolder } from "./run_task.ts";
import { collectSmall, trainSmall } from "./small_sae.ts";

/** A copy of an SAE folder whose config is changed. */
function changedSae(
  from: string,
  to: string,
  change: (
    config: Record<string, unknown>,
    ours: Record<string, unknown>,
  ) => void,
): void {
  Deno.mkdirSync(to);
  Deno.copyFileSync(
    join(from, "sae_weights.safetensors"),
    join(to, "sae_weights.safetensors"),
  );
  const config = JSON.parse(Deno.readTextFileSync(join(from, "cfg.json")));
  change(config, config.metadata.open_concept_steering);
  Deno.writeTextFileSync(join(to, "cfg.json"), JSON.stringify(config));
}

Deno.test("eval measures an SAE on residuals and in the model", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  await trainSmall(cwd, "sae");
  const words = ["eval", "--sae=sae", "--documents=4"] as const;
  const residuals = ["--residuals=residuals", "--last=200"];
  const run = await runTask([...words, ...residuals, "--json"], { cwd });
  equal(run.code, 0, run.stderr);
  const report = JSON.parse(run.stdout);
  deepEqual([report.hookPoint, report.d_sae], ["resid_post[3]", 64]);
  // The same 200 vectors as those that training held out.
  const { heldOut } = JSON.parse(
    Deno.readTextFileSync(join(cwd, "sae", "manifest.json")),
  );
  for (const name of ["nTokens", "fvu", "L0", "deadShare"]) {
    equal(report.vectors[name], heldOut[name], name);
  }
  const { loss } = report;
  ok(loss.ceModel < loss.ceSae && loss.ceSae < loss.ceMean, run.stdout);
  ok(loss.recoveredFromZero > 0 && loss.recoveredFromZero < 1);
  const text = await runTask([...words, "--no-loss"], { cwd });
  equal(text.code, 0, text.stderr);
  match(
    text.stdout,
    /^FVU +0\.\d{4} {2}variance unexplained, .* of \d+ vectors$/m,
  );
  match(
    text.stdout,
    /^dead +\d+\.\d\d % {2}of 64 features fire on none of \d+ vectors$/m,
  );
  ok(!text.stdout.includes("cross-entropy"));
});

Deno.test("eval refuses an SAE that does not fit, and says which file and what to do", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  await trainSmall(cwd, "sae");
  await collectSmall(cwd, "elsewhere", "--hook=resid_post[2]");
  const sae = join(cwd, "sae");
  changedSae(sae, join(cwd, "other"), (_, ours) => {
    ours.modelFingerprint = "0123456789abcdef";
  });
  changedSae(sae, join(cwd, "deep"), (_, ours) => {
    ours.hookPoint = "resid_post[8]";
  });
  changedSae(sae, join(cwd, "wide"), (config) => {
    config.d_in = 193;
  });
  const cases: [string[], RegExp][] = [
    [
      ["--sae=other"],
      /Cannot use SAE ".*other" with model ".*tiny-olmo2": expected the weights of tiny-olmo2 \(0123456789abcdef\): got .*--any-model/,
    ],
    [
      ["--sae=deep"],
      /Cannot use SAE ".*deep" with model .*: expected a layer from 0 to 7: got resid_post\[8\]/,
    ],
    [["--sae=wide"], /Cannot .*".*wide\/sae_weights\.safetensors".*W_enc.*/],
    [["--sae=none"], /Cannot open folder ".*none": no such file or folder/],
    [
      ["--sae=residuals"],
      /Cannot open an SAE in ".*residuals": expected sae_weights\.safetensors, .*: got none of them/,
    ],
    [
      ["--sae=sae", "--residuals=elsewhere"],
      /Cannot use SAE ".*sae" with residuals ".*elsewhere": expected an SAE of resid_post\[2\]: got one of resid_post\[3\]/,
    ],
    [
      ["--sae=other", "--residuals=residuals"],
      /Cannot use SAE ".*other" with model/,
    ],
  ];
  for (const [words, message] of cases) {
    const run = await runTask(["eval", ...words], { cwd });
    equal(run.code, 1, words.join(" "));
    equal(run.stdout, "");
    match(run.stderr, new RegExp(`^error: ${message.source}.*\n$`));
  }
  const words = ["--sae=other", "--any-model", "--no-loss", "--documents=2"];
  const run = await runTask(["eval", ...words], { cwd });
  equal(run.code, 0, run.stderr);
});

/** The SAE in open-concept-steering's layout. */
async function inOtherLayout(from: string, to: string): Promise<void> {
  const { d_model, d_sae, W_enc, b_enc, W_dec, b_dec } =
    await (await SaeFile.open(directory(from))).weights();
  const transposed = W_dec.map((_, at) =>
    W_dec[(at % d_sae) * d_model + Math.floor(at / d_sae)]!
  );
  const tensors = Object.entries(
    {
      "encode.weight": [W_enc, [d_sae, d_model]],
      "encode.bias": [b_enc, [d_sae]],
      "decode.weight": [transposed, [d_model, d_sae]],
      "decode.bias": [b_dec, [d_model]],
    } as const,
  ).map(([name, [values, shape]]) => ({
    name,
    dtype: "F32" as const,
    shape,
    bytes: new Uint8Array(values.buffer),
  }));
  Deno.mkdirSync(to);
  await writeAtomic(
    join(to, "sae_weights.safetensors"),
    safetensorsChunks(tensors),
  );
  Deno.writeTextFileSync(
    join(to, "sae_config.json"),
    JSON.stringify({ input_size: d_model, hidden_size: d_sae }),
  );
}

Deno.test("eval takes an SAE of open-concept-steering when its layer is told, without cross-entropies", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals", "--hook=final_norm@3");
  await trainSmall(cwd, "sae");
  await inOtherLayout(join(cwd, "sae"), join(cwd, "ocs"));
  const words = ["--residuals=residuals", "--json"];
  const untold = await runTask(["eval", "--sae=ocs", ...words], { cwd });
  equal(untold.code, 1);
  match(
    untold.stderr,
    /^error: .*from 0 to 7: got final_norm@15: .*--layer if .*\n$/,
  );
  const ours = await runTask(["eval", "--sae=sae", ...words], { cwd });
  const told = await runTask(
    ["eval", "--sae=ocs", "--layer=3", ...words],
    { cwd },
  );
  equal(told.code, 0, told.stderr);
  match(told.stderr, /^no cross-entropies: an SAE of final_norm@3 /m);
  const report = JSON.parse(told.stdout);
  deepEqual([report.hookPoint, report.loss], ["final_norm@3", null]);
  deepEqual(report.vectors, JSON.parse(ours.stdout).vectors);
});
