/** Steering at several layers, on schedules, against the model in float64. */
import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { KvCache } from "../../core/kv_cache.ts";
import { Workspace } from "../../core/olmo2.ts";
import { readModelConfig } from "../../core/olmo2_config.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { openCheckpoint } from "../../core/safetensors.ts";
import { wholeSequences } from "../../core/token_batch.ts";
import { generate, GREEDY } from "../../steer/generate.ts";
import {
  type Intervention,
  parseIntervention,
  SteeringBank,
} from "../../steer/interventions.ts";
import { assertRelativeError } from "../assert_close.ts";
import { forwardReference } from "../reference/olmo2_forward.ts";
import {
  activationReference,
  type SteerEntry,
  steerReference,
} from "../reference/steer_reference.ts";
import {
  greedyCase,
  loadModel,
  MHA,
  NO_STOP,
  openExpected,
  path,
} from "./fixture_models.ts";

const FOLDER = directory(path(`fixtures/${MHA.name}`));
const LAYER = 1;
const openSae = () => SaeFile.open(FOLDER, { layer: LAYER });

/** Of the SAE's own layer and of two others, from the start, later and fading. */
const SET = [
  ...["3=4", "5@3=2:add", "7@0=3:min", "9=2:scale"],
  ...["3@3=3:after=1", "11=5:add:after=3:decay=4", "12@0=4:decay=6"],
].map((text) => parseIntervention(text));

/** The float64 entry of an intervention by an absolute strength. */
async function entryOf(
  sae: SaeFile,
  { feature, mode, strength, after, decay }: Intervention,
): Promise<SteerEntry> {
  return {
    W_enc: await sae.rowsOfEncoder(feature, feature + 1),
    W_dec: await sae.rowsOfDecoder(feature, feature + 1),
    b_enc: (await sae.b_enc())[feature]!,
    mode: mode === "ablate" ? "clamp" : mode,
    value: strength,
    linear: false,
    ...(after !== undefined && { after }),
    ...(decay !== undefined && { decay }),
  };
}

/** Logits of a prompt and its reply in float64, steered by {@link SET}, and the activations of watched features. */
async function reference(
  ids: readonly number[],
  nPrompt: number,
  watched: readonly { feature: number; layer: number }[] = [],
) {
  const config = await readModelConfig(FOLDER);
  const sae = await openSae();
  const entries = await Promise.all(SET.map(async (one) => ({
    layer: one.layer ?? LAYER,
    entry: await entryOf(sae, one),
  })));
  const watching = await Promise.all(watched.map(({ feature }) => {
    const watch = { mode: "add", strength: 0, unit: "absolute" } as const;
    return entryOf(sae, { feature, ...watch });
  }));
  const acts = ids.map(() => new Float64Array(watched.length));
  const logits = await forwardReference(
    await openCheckpoint(FOLDER),
    config,
    ids,
    (layer, resid) => {
      const here = entries.filter((one) => one.layer === layer)
        .map(({ entry }) => entry);
      for (const [t, row] of resid.entries()) {
        for (const [slot, place] of watched.entries()) {
          if (place.layer !== layer) continue;
          acts[t]![slot] = activationReference(row, watching[slot]!);
        }
        resid[t] = steerReference(row, here, Math.max(0, t + 1 - nPrompt));
      }
    },
  );
  return { logits, acts };
}

const flat = (rows: readonly Float64Array[]): number[] =>
  rows.flatMap((row) => [...row]);

Deno.test("forwardReference() gives Hugging Face's logits", async () => {
  const expected = await openExpected(MHA.name);
  const ids = await expected.ints("input_ids");
  const [, T] = expected.info("input_ids").shape as [number, number];
  using model = await loadModel(MHA);
  const got = await forwardReference(
    await openCheckpoint(FOLDER),
    model.config,
    [...ids.subarray(0, T)],
  );
  const mask = await expected.ints("attention_mask");
  const n = mask.subarray(0, T).filter((kept) => kept === 1).length;
  const want = await expected.floats("logits");
  const { vocab_size } = model.config;
  const limit = 1e-5;
  const some = flat(got.slice(0, n));
  assertRelativeError(some, want.subarray(0, n * vocab_size), limit, "logits");
});

Deno.test("SteeringBank steers after several blocks as float64 does, and captures activations there", async () => {
  using model = await loadModel(MHA);
  const { gpu, config, nLayers } = model;
  const watched = [
    { feature: 5, layer: 3 },
    { feature: 9, layer: 1 },
    { feature: 9, layer: 2 },
    { feature: 20, layer: 0 },
  ];
  const sae = await openSae();
  using bank = await SteeringBank.open(gpu, [{ sae, layer: LAYER }]);
  const set = await bank.add(SET, watched);
  assert.deepEqual(bank.layers, [0, 1, 2, 3]);
  const ids = Array.from({ length: 20 }, (_, t) => (11 * t + 5) % 129 + 2);
  const nPrompt = 9;
  const T = ids.length;
  const batch = wholeSequences(config, [ids]);
  using work = new Workspace(gpu, config, T);
  using cache = new KvCache(gpu, config, {
    nRows: 1,
    nLayers,
    isShared: true,
  });
  using normed = gpu.tensor("normed", "f32", [T, config.d_model]);
  using logits = gpu.tensor("logits", "f32", [T, config.vocab_size]);
  using acts = gpu.floats(
    "acts",
    [T, bank.nSlots],
    new Float32Array(T * bank.nSlots).fill(NaN),
  );
  cache.fit([T]);
  work.load(batch);
  bank.loadPass(ids.map((_, t) => ({ set, n: Math.max(0, t + 1 - nPrompt) })));
  gpu.record("steered", (rec) => {
    const resid = model.forward(rec, work, cache, {
      hook: (rec, layer, resid) => bank.run(rec, layer, resid, acts),
    });
    model.finalNorm(rec, resid, normed);
    model.logits(rec, normed, logits);
  });
  const want = await reference(ids, nPrompt, watched);
  const limit = 1e-5;
  assertRelativeError(
    await gpu.read(logits),
    flat(want.logits),
    limit,
    "logits",
  );
  assertRelativeError(await gpu.read(acts), flat(want.acts), limit, "acts");
  for (const slot of watched.keys()) {
    assert.ok(
      want.acts.some((row) => row[slot]! > 0),
      `the feature in slot ${slot} fires somewhere`,
    );
  }
});

Deno.test("generate() follows schedules at several layers as float64 does, token by token", async () => {
  using model = await loadModel(MHA);
  using bank = await SteeringBank.load(
    model.gpu,
    await openSae(),
    [SET],
    { layer: LAYER },
  );
  const { prompt } = await greedyCase(MHA.name);
  const request = { prompt, sampling: GREEDY };
  const options = { maxNewTokens: 14, ...NO_STOP, steering: bank };
  const [reply, plain] = await generate(
    model,
    [{ ...request, steeringSet: 0 }, request],
    options,
  );
  const ids = [...prompt, ...reply!];
  const { logits } = await reference(ids, prompt.length);
  const likeliest = logits.map((row) =>
    row.indexOf(row.reduce((most, x) => Math.max(most, x)))
  );
  assert.deepEqual(reply, likeliest.slice(prompt.length - 1, -1));
  assert.notDeepEqual(reply, plain);
});

Deno.test("generate() leaves as many tokens of a reply as after says", async () => {
  using model = await loadModel(MHA);
  const { prompt } = await greedyCase(MHA.name);
  const request = { prompt, sampling: GREEDY };
  const nLeft = [0, 1, 2, 5, 9, 30];
  using bank = await SteeringBank.load(
    model.gpu,
    await openSae(),
    nLeft.map((after) => [
      { ...parseIntervention("3=1e4:add"), after },
    ]),
    { layer: LAYER },
  );
  const [plain, ...steered] = await generate(
    model,
    [
      request,
      ...nLeft.map((_, steeringSet) => ({ ...request, steeringSet })),
    ],
    { maxNewTokens: 12, ...NO_STOP, steering: bank },
  );
  for (const [i, after] of nLeft.entries()) {
    const n = Math.min(after, 12);
    assert.deepEqual(steered[i]!.slice(0, n), plain!.slice(0, n));
    if (n === 12) continue;
    // So strong that it shows at once.
    assert.notEqual(steered[i]![n], plain![n], `after ${after}`);
  }
});
