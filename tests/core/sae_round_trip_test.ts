/** Every layout that is read, written in every layout that can say it. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { SaeFile } from "../../core/sae_file.ts";
import {
  SAE_TARGETS,
  type SaeTarget,
  type SaeToWrite,
  writeSae,
} from "../../core/sae_write.ts";
import { directory } from "../../core/files.ts";
import { assertRelativeError } from "../assert_close.ts";
import { LIBRARIES, readSaeFiles } from "../reference/sae_libraries.ts";
import { writableFolder } from "./sae_for_tests.ts";
import {
  encodedBy,
  formatFolder,
  type RawWeights,
  rawWeights,
} from "./sae_references.ts";

/** Files of the weights and the config that a target has. */
const FILES: Record<SaeTarget, readonly [string, string]> = {
  "saelens": ["sae_weights.safetensors", "cfg.json"],
  "sparsify": ["sae.safetensors", "cfg.json"],
  "open-concept-steering": ["sae_weights.safetensors", "sae_config.json"],
};

/** Which layouts can say an architecture. */
const TARGETS: Record<string, readonly SaeTarget[]> = {
  relu: ["saelens", "open-concept-steering"],
  topk: ["saelens", "sparsify"],
  jumprelu: ["saelens"],
};

/** An SAE in another layout, in memory. */
async function converted(
  sae: SaeFile,
  target: SaeTarget,
): Promise<ReturnType<typeof writableFolder>> {
  const written = writableFolder();
  const metadata = { hookPoint: "resid_post[3]", ...sae.metadata } as const;
  const toWrite: SaeToWrite = {
    d_model: sae.d_model,
    d_sae: sae.d_sae,
    metadata,
    rowsOfEncoder: (start, end) => sae.rowsOfEncoder(start, end),
    rowsOfDecoder: (start, end) => sae.rowsOfDecoder(start, end),
    b_enc: () => sae.b_enc(),
    b_dec: () => sae.b_dec(),
    threshold: () => sae.threshold(),
  };
  await writeSae(written.write, toWrite, target);
  return written;
}

/** What the library that a layout is for makes of the vectors with the files. */
async function encodedByLibrary(
  written: ReturnType<typeof writableFolder>,
  target: SaeTarget,
  { x, d_model }: RawWeights,
): Promise<{ acts: number[]; xHat: number[] }> {
  const files = await readSaeFiles(written.folder(), ...FILES[target]);
  const acts: number[] = [];
  const xHat: number[] = [];
  for (let start = 0; start < x.length; start += d_model) {
    const row = Float64Array.from(x.subarray(start, start + d_model));
    const encoded = LIBRARIES[target](files, row);
    acts.push(...encoded.acts);
    xHat.push(...encoded.xHat);
  }
  return { acts, xHat };
}

/** Asserts that features and reconstructions are the same. */
function assertSameFeatures(
  got: { acts: number[]; xHat: number[] },
  want: { acts: number[]; xHat: number[] },
  limit: number,
  label: string,
): void {
  const fires = (acts: number[]) => acts.map((act) => act > 0);
  deepEqual(fires(got.acts), fires(want.acts), label);
  assertRelativeError(got.acts, want.acts, limit, `acts of ${label}`);
  assertRelativeError(got.xHat, want.xHat, limit, `x̂ of ${label}`);
}

/** All that other tools wrote, one of each class, and one in bf16. */
const SOURCES: readonly (readonly [folder: string, file?: string])[] = [
  ["AutoEncoder"],
  ["AutoEncoderNew"],
  ["AutoEncoderTopK"],
  ["BatchTopKSAE"],
  ["BatchTopKSAE-early"],
  ["GatedAutoEncoder"],
  ["JumpReluAutoEncoder"],
  ["MatryoshkaBatchTopKSAE"],
  ["npz", "params.npz"],
  ["ocs", "sae_checkpoint_epoch_0.pt"],
];

for (const [name, file] of SOURCES) {
  Deno.test(`writeSae() keeps the features of ${name} in every layout that can say it, there and back`, async () => {
    const raw = await rawWeights();
    const sae = await SaeFile.open(formatFolder(name), file ? { file } : {});
    const want = await encodedBy(sae, raw.x);
    const targets = TARGETS[sae.architecture]!;
    ok(targets.length > 0);
    for (const target of targets) {
      const label = `${name} in ${target}`;
      // The bias of sparsify is rounded to f32 once on the way there and once on the way back; all else is kept.
      const limit = target === "sparsify" ? 1e-6 : 1e-13;
      const written = await converted(sae, target);
      const byLibrary = await encodedByLibrary(written, target, raw);
      assertSameFeatures(byLibrary, want, limit, label);
      const read = await SaeFile.open(written.folder());
      equal(read.layout, target);
      deepEqual(read.metadata, { hookPoint: "resid_post[3]", ...sae.metadata });
      const again = await encodedBy(read, raw.x);
      assertSameFeatures(again, want, limit, `${label}, read`);
      for (const next of targets) {
        const chain = await SaeFile.open(
          (await converted(read, next)).folder(),
        );
        assertSameFeatures(
          await encodedBy(chain, raw.x),
          want,
          Math.max(limit, next === "sparsify" ? 1e-6 : 0),
          `${label} in ${next}`,
        );
      }
      if (target === "sparsify") continue;
      deepEqual(await read.weights(), await sae.weights(), label);
    }
  });
}

Deno.test("writeSae() keeps what a bf16 file has, bit for bit", async () => {
  const path = new URL("../fixtures/ocs-checkpoint", import.meta.url).pathname;
  const sae = await SaeFile.open(directory(path));
  for (const target of SAE_TARGETS.filter((target) => target !== "sparsify")) {
    const read = await SaeFile.open((await converted(sae, target)).folder());
    deepEqual(await read.weights(), await sae.weights());
    equal(read.metadata.hookPoint, "final_norm@15");
  }
});
