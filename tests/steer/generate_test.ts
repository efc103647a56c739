import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { SaeFile } from "../../core/sae_file.ts";
import {
  generate,
  type GenerateOptions,
  type GenerateRequest,
  GREEDY,
  type Sampling,
} from "../../steer/generate.ts";
import { SteeringBank } from "../../steer/interventions.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import {
  hugeSae,
  loadBank,
  loadModel,
  MHA,
  NO_STOP,
  others,
  path,
  PROMPTS,
  SAMPLED,
} from "./fixture_models.ts";
import { greedyByFullPasses } from "./full_pass.ts";

Deno.test("generate() samples the same reply when the seed is the same, whatever is in the batch", async () => {
  using model = await loadModel(MHA);
  const options = { maxNewTokens: 20, ...NO_STOP };
  const request = { prompt: PROMPTS[1]!, sampling: SAMPLED };
  const [alone] = await generate(model, [request], options);
  const batch = others(SAMPLED).toSpliced(5, 0, request);
  const [, , , , , among] = await generate(model, batch, options);
  assert.deepEqual(among, alone);
  const seeds = await generate(
    model,
    [1, 2, 3, 1].map((seed) => ({
      ...request,
      sampling: { ...SAMPLED, seed },
    })),
    options,
  );
  assert.deepEqual(seeds[0], alone);
  assert.deepEqual(seeds[3], alone);
  assert.equal(new Set(seeds.map((ids) => ids.join())).size, 3);
});

Deno.test("generate() ends each reply before its first stop token and lets the others go on", async () => {
  using model = await loadModel(MHA);
  const batch = others(SAMPLED);
  const options = { maxNewTokens: 30, ...NO_STOP };
  const whole = await generate(model, batch, options);
  assert.ok(whole.every((ids) => ids.length === 30));
  // Such that some replies end within the first read, some later, some never.
  const stopIds = [whole[0]![3]!, whole[1]![11]!];
  const ended = await generate(model, batch, { maxNewTokens: 30, stopIds });
  const lengths = new Set<number>();
  for (const [i, ids] of ended.entries()) {
    const stop = whole[i]!.findIndex((id) => stopIds.includes(id));
    assert.deepEqual(ids, stop < 0 ? whole[i] : whole[i]!.slice(0, stop));
    lengths.add(ids.length);
  }
  assert.ok(lengths.size > 2 && lengths.has(30), [...lengths].join());
  const atOnce = await generate(model, [batch[0]!], {
    maxNewTokens: 30,
    stopIds: [whole[0]![0]!],
  });
  assert.deepEqual(atOnce, [[]]);
});

Deno.test("generate() ends at the model's end-of-text token when no stop ids are given", async () => {
  using model = await loadModel(MHA);
  assert.deepEqual(model.config.eos_token_ids, [0]);
  const sampling = { ...SAMPLED, temperature: 20, topP: 1 };
  const batch = [...others(sampling), ...others(sampling)].map((
    request,
    seed,
  ) => ({ ...request, sampling: { ...sampling, seed } }));
  const options = { maxNewTokens: 30 };
  const whole = await generate(model, batch, { ...options, ...NO_STOP });
  const nEnded = whole.filter((ids) => ids.includes(0)).length;
  assert.ok(nEnded > 0, "no reply of the test has an end");
  assert.deepEqual(
    await generate(model, batch, options),
    whole.map((ids) => ids.slice(0, (ids.indexOf(0) + 31) % 31)),
  );
});

Deno.test("generate() gives exactly maxNewTokens tokens when nothing stops it", async () => {
  using model = await loadModel(MHA);
  const batch = others(GREEDY).slice(0, 2);
  for (const maxNewTokens of [0, 1, 2, 8, 9, 10, 17]) {
    const replies = await generate(model, batch, { maxNewTokens, ...NO_STOP });
    assert.deepEqual(replies.map((ids) => ids.length), [
      maxNewTokens,
      maxNewTokens,
    ]);
  }
  assert.deepEqual(await generate(model, [], { maxNewTokens: 5 }), []);
});

Deno.test("generate() fills the context to its last place and refuses more, in one line", async () => {
  using model = await loadModel(MHA);
  const prompt = Array.from({ length: 60 }, (_, i) => i + 2);
  assert.equal(model.config.context_length, 64);
  const request = { prompt, sampling: GREEDY };
  assert.deepEqual(
    await generate(model, [request], { maxNewTokens: 4, ...NO_STOP }),
    [await greedyByFullPasses(model, prompt, 4)],
  );
  await rejectsInOneLine(
    () => generate(model, [request], { maxNewTokens: 5 }),
    /^RangeError: Cannot generate 5 tokens after a prompt of 60: the model's context is 64: shorten /,
  );
});

Deno.test("generate() refuses what it cannot do in one line, and holds no memory", async () => {
  using model = await loadModel(MHA);
  using bank = await loadBank(MHA);
  const request = { prompt: [5], sampling: GREEDY };
  const options = { maxNewTokens: 5 };
  const cases: [GenerateRequest, GenerateOptions, RegExp][] = [
    [{ ...request, prompt: [] }, options, /^RangeError: .*at least one token/],
    [{ ...request, prompt: [131] }, options, /^RangeError: .*0 to 130$/],
    [request, { maxNewTokens: -1 }, /^RangeError: .*new tokens.*: got -1$/],
    [request, { maxNewTokens: 1.5 }, /^RangeError: .*new tokens.*: got 1.5$/],
    [{ ...request, steeringSet: 0 }, options, /^RangeError: .*set 0.*bank/],
    [{ ...request, steeringSet: 1 }, { ...options, steering: bank }, /set 1/],
  ];
  const settings: Partial<Sampling>[] = [
    ...[{ temperature: NaN }, { temperature: -1 }, { temperature: Infinity }],
    ...[{ topP: 1.1 }, { topP: NaN }, { topK: -1 }, { topK: 0.5 }],
    ...[{ seed: -1 }, { seed: 2 ** 32 }, { seed: NaN }],
  ];
  for (const setting of settings) {
    const sampling = { ...GREEDY, ...setting };
    cases.push([
      { prompt: [5], sampling },
      options,
      /^RangeError: Cannot sampl/,
    ]);
  }
  const before = model.gpu.allocatedBytes;
  for (const [wrong, options, pattern] of cases) {
    await rejectsInOneLine(() => generate(model, [wrong], options), pattern);
  }
  assert.equal(model.gpu.allocatedBytes, before);
  using deep = await SteeringBank.load(
    model.gpu,
    await SaeFile.open(directory(path(`fixtures/${MHA.name}`)), { layer: 4 }),
    [[{ feature: 0, mode: "add", strength: 1, unit: "absolute" }]],
    { layer: 4 },
  );
  await rejectsInOneLine(
    () =>
      generate(model, [{ ...request, steeringSet: 0 }], {
        ...options,
        steering: deep,
      }),
    /^RangeError: Cannot steer after block 4: expected a layer from 0 to 3/,
  );
});

Deno.test("generate() stops with one line when steering makes the logits infinite", async () => {
  using model = await loadModel(MHA);
  const sae = await hugeSae(model.config.d_model);
  const before = model.gpu.allocatedBytes;
  {
    using bank = await SteeringBank.load(
      model.gpu,
      sae,
      [[{ feature: 0, mode: "add", strength: 1e10, unit: "absolute" }]],
      { layer: 1 },
    );
    for (const positions of ["all", "generated"] as const) {
      const arrived: number[] = [];
      await rejectsInOneLine(
        () =>
          generate(
            model,
            [{ prompt: [5, 6], sampling: GREEDY, steeringSet: 0 }],
            {
              maxNewTokens: 20,
              ...NO_STOP,
              steering: bank,
              positions,
              onTokens: (_, ids) => arrived.push(...ids),
            },
          ),
        /^Error: Cannot choose the next token: expected finite logits: .*: steer less strongly$/,
      );
      assert.equal(arrived.length, positions === "all" ? 0 : 1);
    }
  }
  assert.equal(model.gpu.allocatedBytes, before);
});

Deno.test("generate() tells every token in order when it streams", async () => {
  using model = await loadModel(MHA);
  const batch = others(SAMPLED);
  const pieces: number[][] = batch.map(() => []);
  const order: number[] = [];
  const replies = await generate(model, batch, {
    maxNewTokens: 20,
    ...NO_STOP,
    onTokens: (request, ids) => {
      assert.ok(ids.length > 0);
      pieces[request]!.push(...ids);
      order.push(request);
    },
  });
  assert.deepEqual(pieces, replies);
  const nAtOnce = order.length / batch.length;
  assert.ok(nAtOnce >= 3, "20 tokens arrive in at least 3 parts");
  for (let i = 0; i < order.length; i += batch.length) {
    assert.deepEqual(order.slice(i, i + batch.length), [...batch.keys()]);
  }
});

Deno.test("generate() returns what has arrived when it is aborted", async () => {
  using model = await loadModel(MHA);
  const [request] = others(GREEDY).slice(1);
  const before = model.gpu.allocatedBytes;
  const options = { maxNewTokens: 40, ...NO_STOP };
  const [whole] = await generate(model, [request!], options);
  const controller = new AbortController();
  const arrived: number[] = [];
  const [part] = await generate(model, [request!], {
    ...options,
    signal: controller.signal,
    onTokens: (_, ids) => {
      arrived.push(...ids);
      if (arrived.length > 5) controller.abort();
    },
  });
  assert.deepEqual(part, arrived);
  // The 8 tokens that went beyond 5, and the 8 that were recorded by then.
  assert.ok(part!.length > 5 && part!.length <= 21, `${part!.length} tokens`);
  assert.deepEqual(part, whole!.slice(0, part!.length));
  const [none] = await generate(model, [request!], {
    ...options,
    signal: controller.signal,
  });
  assert.deepEqual(none, []);
  assert.equal(model.gpu.allocatedBytes, before);
});

Deno.test("generate() reads long prompts in several passes when they exceed one", async () => {
  using model = await loadModel(MHA);
  // 60 prompts of 57 tokens are more than the 2,048 of a pass.
  const prompts = Array.from(
    { length: 60 },
    (_, i) => Array.from({ length: 57 }, (_, t) => (i + 3 * t) % 129 + 2),
  );
  const replies = await generate(
    model,
    prompts.map((prompt) => ({ prompt, sampling: GREEDY })),
    { maxNewTokens: 3, ...NO_STOP },
  );
  for (const i of [0, 35, 36, 59]) {
    assert.deepEqual(
      replies[i],
      await greedyByFullPasses(model, prompts[i]!, 3),
      `prompt ${i}`,
    );
  }
});

Deno.test("generate() lets requests wait where there are more than rows", async () => {
  using model = await loadModel(MHA);
  const request = { prompt: PROMPTS[1]!, sampling: SAMPLED };
  const many = Array.from({ length: 300 }, (_, seed) => ({
    ...request,
    sampling: { ...SAMPLED, seed },
  }));
  const options = { maxNewTokens: 2, ...NO_STOP };
  const replies = await generate(model, many, options);
  assert.equal(replies.length, 300);
  for (const i of [0, 255, 256, 299]) {
    assert.deepEqual([replies[i]], await generate(model, [many[i]!], options));
  }
});
