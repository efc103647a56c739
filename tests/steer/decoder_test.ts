import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import type { Olmo2 } from "../../core/olmo2.ts";
import { PAGE_TOKENS } from "../../core/kv_cache.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { Decoder, type DecoderOptions } from "../../steer/decoder.ts";
import { generate, GREEDY } from "../../steer/generate.ts";
import { type Intervention, SteeringBank } from "../../steer/interventions.ts";
import type { Reply, ReplyRequest } from "../../steer/reply.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import {
  hugeSae,
  loadBank,
  loadModel,
  MHA,
  path,
  PROMPTS,
  SAMPLED,
} from "./fixture_models.ts";
import { fullPass } from "./full_pass.ts";

/** Adds requests at once, and takes turns until all have ended. */
async function decode(
  model: Olmo2,
  requests: readonly ReplyRequest[],
  options: Partial<DecoderOptions> = {},
): Promise<Reply[]> {
  using decoder = new Decoder(model, { maxRows: requests.length, ...options });
  const replies = requests.map((request) => decoder.add(request));
  await untilIdle(decoder);
  return replies;
}

async function untilIdle(decoder: Decoder): Promise<void> {
  for (let turns = 0; !decoder.isIdle; turns++) {
    assert.ok(turns < 500, "the decoder does not come to an end");
    await decoder.turn();
  }
}

/** Requests that differ in everything. */
function various(): ReplyRequest[] {
  return PROMPTS.map((prompt, i) => ({
    prompt,
    maxNewTokens: [30, 1, 7, 20, 9, 8, 25][i]!,
    stopIds: [],
    sampling: i % 3 === 0
      ? GREEDY
      : { ...SAMPLED, temperature: 0.5 + 0.3 * i, seed: i },
  }));
}

/** What a request gives alone. */
async function alone(
  model: Olmo2,
  { prompt, sampling, maxNewTokens }: ReplyRequest,
): Promise<readonly number[]> {
  const options = { maxNewTokens, stopIds: [] };
  const [ids] = await generate(model, [{ prompt, sampling }], options);
  return ids!;
}

const ids = (replies: readonly Reply[]) => replies.map(({ ids }) => [...ids]);

Deno.test("Decoder gives each reply its own length and settings, however many have a row at once", async () => {
  using model = await loadModel(MHA);
  const requests = various();
  const want: (readonly number[])[] = [];
  for (const request of requests) want.push(await alone(model, request));
  assert.deepEqual(want.map(({ length }) => length), [30, 1, 7, 20, 9, 8, 25]);
  for (const maxRows of [1, 2, 3, 7, 20]) {
    const replies = await decode(model, requests, { maxRows });
    assert.deepEqual(ids(replies), want, `${maxRows} rows`);
    assert.ok(replies.every(({ end }) => end === "length"));
  }
});

Deno.test("Decoder lets replies join while others are under way, without changing them", async () => {
  using model = await loadModel(MHA);
  const requests = various();
  using decoder = new Decoder(model, { maxRows: 4 });
  const replies: Reply[] = [];
  for (const request of requests) {
    replies.push(decoder.add(request));
    await decoder.turn();
    assert.ok(decoder.nActive <= 4);
  }
  await untilIdle(decoder);
  for (const [i, request] of requests.entries()) {
    assert.deepEqual([...replies[i]!.ids], await alone(model, request), `${i}`);
  }
});

Deno.test("Decoder reads prompts in chunks with the same replies, beside others that go on", async () => {
  using model = await loadModel(MHA);
  const requests = various();
  const want = ids(await decode(model, requests));
  for (const prefillTokens of [1, 5, 16, 29]) {
    const replies = await decode(model, requests, {
      prefillTokens,
      maxRows: 3,
    });
    assert.deepEqual(ids(replies), want, `${prefillTokens} tokens a pass`);
  }
});

Deno.test("Decoder lets replies wait for pages, and gives the same ones", async () => {
  using model = await loadModel(MHA);
  const requests = various();
  const want = ids(await decode(model, requests));
  // The longest needs 37 tokens, three pages; together they need ten.
  const replies = await decode(model, requests, {
    maxCachedTokens: 4 * PAGE_TOKENS,
  });
  assert.deepEqual(ids(replies), want);
});

Deno.test("Decoder ends a reply that asks for more than its pages, and the others go on", async () => {
  using model = await loadModel(MHA);
  const short = { prompt: PROMPTS[2]!, maxNewTokens: 8, stopIds: [] };
  const long = { prompt: PROMPTS[1]!, maxNewTokens: 40, stopIds: [] };
  const requests = [
    { ...short, sampling: GREEDY },
    { ...long, sampling: GREEDY },
    { ...short, sampling: SAMPLED },
  ];
  const [a, b, c] = await decode(model, requests, {
    maxCachedTokens: 2 * PAGE_TOKENS,
  });
  const whole = await alone(model, requests[1]!);
  assert.equal(b!.end, "memory");
  assert.ok(b!.ids.length > 0 && b!.ids.length <= 16, `${b!.ids.length}`);
  assert.deepEqual([...b!.ids], whole.slice(0, b!.ids.length));
  for (const [reply, request] of [[a, 0], [c, 2]] as const) {
    assert.equal(reply!.end, "length");
    assert.deepEqual([...reply!.ids], await alone(model, requests[request]!));
  }
  // Each takes the other's pages, and still has too few.
  const growing = { ...requests[0]!, maxNewTokens: 40 };
  const both = await decode(model, [growing, growing], {
    maxCachedTokens: 2 * PAGE_TOKENS,
  });
  const grown = await alone(model, growing);
  for (const { end, ids } of both) {
    assert.equal(end, "memory");
    assert.deepEqual([...ids], grown.slice(0, ids.length));
  }
  const tooLong = { prompt: PROMPTS[3]!, maxNewTokens: 2, sampling: GREEDY };
  const [refused, other] = await decode(model, [tooLong, requests[0]!], {
    maxCachedTokens: PAGE_TOKENS,
  });
  assert.equal(refused!.end, "memory");
  assert.deepEqual([...refused!.ids], []);
  assert.deepEqual([...other!.ids], await alone(model, requests[0]!));
});

Deno.test("Decoder steers from the next token that arrives when a reply's steering changes", async () => {
  using model = await loadModel(MHA);
  using bank = await loadBank(MHA);
  for (const sampling of [GREEDY, { ...SAMPLED, repetitionPenalty: 1.3 }]) {
    for (const nBefore of [0, 1, 9]) {
      const request = {
        prompt: PROMPTS[1]!,
        maxNewTokens: 30,
        stopIds: [],
        sampling,
      };
      using decoder = new Decoder(model, { maxRows: 3, steering: bank });
      const [left, reply] = [decoder.add(request), decoder.add(request)];
      while (reply.ids.length < nBefore) await decoder.turn();
      const n = reply.ids.length;
      reply.steer(0); // more may be under way
      await untilIdle(decoder);
      const plain = await alone(model, request);
      assert.deepEqual([...left.ids], plain);
      assert.deepEqual(reply.ids.slice(0, n), plain.slice(0, n));
      // The same by a schedule.
      const schedule = await scheduled(n);
      using other = schedule;
      const [want] = await decode(model, [{ ...request, steeringSet: 0 }], {
        steering: other,
      });
      assert.deepEqual([...reply.ids], [...want!.ids], `after ${n}`);
      assert.notDeepEqual([...reply.ids], plain);
    }
  }
});

/** The fixture's steering from the n-th token on. */
async function scheduled(after: number): Promise<SteeringBank> {
  const { name, json } = MHA;
  const layer = json.steering_layer;
  const sae = await SaeFile.open(directory(path(`fixtures/${name}`)), {
    layer,
  });
  const set = Object.entries(json.clamps).map((
    [feature, strength],
  ): Intervention => ({
    feature: Number(feature),
    mode: "clamp",
    strength,
    unit: "absolute",
    after,
  }));
  return await SteeringBank.load(await testGpu(), sae, [set], { layer });
}

Deno.test("Decoder gives rows of one batch steering sets of their own, of all positions or of generated ones", async () => {
  using model = await loadModel(MHA);
  using bank = await loadBank(MHA);
  const strong: Intervention = {
    feature: 3,
    mode: "add",
    strength: 6,
    unit: "absolute",
  };
  const second = await bank.add([strong]);
  const request = {
    prompt: PROMPTS[1]!,
    maxNewTokens: 20,
    stopIds: [],
    sampling: GREEDY,
  };
  const requests: ReplyRequest[] = [
    request,
    { ...request, steeringSet: 0 },
    { ...request, steeringSet: second },
    { ...request, steeringSet: 0, positions: "generated" },
  ];
  const together = ids(await decode(model, requests, { steering: bank }));
  assert.equal(new Set(together.map(String)).size, 4);
  for (const [i, request] of requests.entries()) {
    const [reply] = await decode(model, [request], { steering: bank });
    assert.deepEqual([...reply!.ids], together[i], `request ${i}`);
  }
});

Deno.test("Decoder captures the activations that each token was chosen at, before they are changed", async () => {
  using model = await loadModel(MHA);
  using bank = await loadBank(MHA);
  const { name, json } = MHA;
  const layer = json.steering_layer;
  const sae = await SaeFile.open(directory(path(`fixtures/${name}`)), {
    layer,
  });
  const watched = [{ feature: 5 }, { feature: 2 }, { feature: 9 }];
  const set = await bank.add([], watched);
  const prompt = PROMPTS[4]!;
  const request = { maxNewTokens: 12, stopIds: [], sampling: GREEDY };
  const rows: (readonly number[])[] = [];
  const others: (readonly number[])[] = [];
  const [reply] = await decode(model, [
    {
      ...request,
      prompt,
      steeringSet: set,
      onTokens: ({ activations }) => rows.push(...activations),
    },
    {
      ...request,
      prompt: PROMPTS[3]!,
      onTokens: ({ activations }) => others.push(...activations),
    },
  ], { steering: bank });
  assert.equal(rows.length, 12);
  assert.ok(others.every(({ length }) => length === 0));
  const resid = await residAt(model, layer, [...prompt, ...reply!.ids]);
  const b_enc = await sae.b_enc();
  const want: number[] = [];
  for (let i = 0; i < 12; i++) {
    const t = prompt.length - 1 + i;
    for (const { feature } of watched) {
      const w = await sae.rowsOfEncoder(feature, feature + 1);
      const at = t * model.config.d_model;
      const pre = w.reduce((s, x, j) => s + x * resid[at + j]!, 0) +
        b_enc[feature]!;
      want.push(Math.max(0, pre));
    }
  }
  assert.ok(want.some((act) => act > 0));
  assertClose(rows.flat(), want, {
    atol: 1e-4,
    label: "activations",
    shape: [12, 3],
  });
});

/** The stream after a block, of a whole sequence. */
async function residAt(
  model: Olmo2,
  layer: number,
  sequence: readonly number[],
): Promise<Float32Array> {
  const { gpu, config: { d_model } } = model;
  using copy = gpu.tensor("resid", "f32", [sequence.length, d_model]);
  const bank = {
    loadPass: () => {},
    run: (
      rec: Parameters<SteeringBank["run"]>[0],
      l: number,
      resid: Parameters<SteeringBank["run"]>[2],
    ) => {
      if (l === layer) rec.copy(resid, copy);
    },
  } as unknown as SteeringBank;
  await fullPass(model, [sequence], { bank, fromPosition: 0 });
  return await gpu.read(copy);
}

Deno.test("Decoder ends a reply by its own stop, which others do not see, or by length when it never comes", async () => {
  using model = await loadModel(MHA);
  const request = {
    prompt: PROMPTS[1]!,
    maxNewTokens: 25,
    stopIds: [],
    sampling: SAMPLED,
  };
  const whole = await alone(model, request);
  let n = 0;
  const [stopped, goesOn, byId] = await decode(model, [
    { ...request, stop: () => ++n === 11 },
    { ...request, stop: () => false },
    { ...request, stopIds: [whole[4]!] },
  ]);
  assert.equal(stopped!.end, "stop");
  assert.equal(n, 11, "asked for each token of the reply, and no more");
  assert.deepEqual([...stopped!.ids], whole.slice(0, 11));
  assert.equal(goesOn!.end, "length");
  assert.deepEqual([...goesOn!.ids], whole);
  assert.equal(byId!.end, "stop");
  assert.deepEqual([...byId!.ids], whole.slice(0, whole.indexOf(whole[4]!)));
});

Deno.test("Decoder ends a reply whose logits are not finite, and the others go on", async () => {
  using model = await loadModel(MHA);
  using bank = await SteeringBank.load(
    model.gpu,
    await hugeSae(model.config.d_model),
    [[{ feature: 0, mode: "add", strength: 1e10, unit: "absolute" }]],
    { layer: 1 },
  );
  const request = { prompt: PROMPTS[1]!, maxNewTokens: 9, sampling: GREEDY };
  const [faulty, sound] = await decode(model, [
    { ...request, steeringSet: 0 },
    request,
  ], { steering: bank });
  assert.equal(sound!.end, "length");
  assert.deepEqual([...sound!.ids], await alone(model, request));
  assert.equal(faulty!.end, "faulty");
  assert.deepEqual([...faulty!.ids], []);
});

Deno.test("Decoder drops a cancelled reply, and lets the next have its row", async () => {
  using model = await loadModel(MHA);
  const [first, , , second] = various();
  using decoder = new Decoder(model, { maxRows: 1 });
  const [a, b, c] = [first!, second!, first!].map((r) => decoder.add(r));
  await decoder.turn();
  assert.equal(decoder.nWaiting, 2);
  a!.cancel();
  c!.cancel();
  const n = a!.ids.length;
  await untilIdle(decoder);
  assert.equal(a!.ids.length, n);
  assert.deepEqual([a!.end, b!.end, c!.end], [
    "cancelled",
    "length",
    "cancelled",
  ]);
  assert.deepEqual([...b!.ids], await alone(model, second!));
});

Deno.test("Decoder refuses what it cannot decode in one line, and goes on", async () => {
  using model = await loadModel(MHA);
  for (const maxRows of [0, 1.5, NaN, 1e9]) {
    await rejectsInOneLine(
      () => Promise.try(() => new Decoder(model, { maxRows })),
      /^RangeError: Cannot decode .* replies at once: expected 1 to \d+, /,
    );
  }
  using decoder = new Decoder(model, { maxRows: 2 });
  const request = { prompt: [5], maxNewTokens: 3, sampling: GREEDY };
  for (
    const wrong of [
      { ...request, prompt: [] },
      { ...request, prompt: [5, 131] },
      { ...request, maxNewTokens: 64 },
      { ...request, steeringSet: 0 },
      { ...request, sampling: { ...GREEDY, topP: 2 } },
    ]
  ) {
    await rejectsInOneLine(
      () => Promise.try(() => decoder.add(wrong)),
      /^RangeError: Cannot /,
    );
  }
  const reply = decoder.add(request);
  const none = decoder.add({ ...request, maxNewTokens: 0 });
  assert.equal(none.end, "length");
  await untilIdle(decoder);
  assert.equal(reply.ids.length, 3);
  await decoder.turn(); // nothing to do
});

Deno.test("Decoder frees all memory, in the middle of replies too", async () => {
  using model = await loadModel(MHA);
  using bank = await loadBank(MHA);
  const set = await bank.add([], [{ feature: 1 }]);
  const steered = various().map((request) => ({
    ...request,
    steeringSet: set,
  }));
  await decode(model, steered, { steering: bank }); // the bank grows
  const before = model.gpu.allocatedBytes;
  {
    using decoder = new Decoder(model, { maxRows: 2, steering: bank });
    for (const request of steered) decoder.add(request);
    await decoder.turn();
    await decoder.turn();
    assert.ok(model.gpu.allocatedBytes > before);
  }
  assert.equal(model.gpu.allocatedBytes, before);
});
