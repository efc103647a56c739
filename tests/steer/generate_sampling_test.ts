import assert from "node:assert/strict";
import {
  generate,
  type GenerateRequest,
  GREEDY,
  type Sampling,
} from "../../steer/generate.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { loadModel, MHA, NO_STOP, PROMPTS } from "./fixture_models.ts";

const options = { maxNewTokens: 25, ...NO_STOP };
const request = (sampling: Partial<Sampling>, at = 3): GenerateRequest => ({
  prompt: PROMPTS[at]!,
  sampling: { ...GREEDY, ...sampling },
});
const nDistinct = (ids: readonly number[]) => new Set(ids).size;

Deno.test("generate() penalizes what a reply holds already, across readbacks and in any batch", async () => {
  using model = await loadModel(MHA);
  const [plain, present, repeated, frequent] = await generate(model, [
    request({}),
    request({ presencePenalty: 1000 }),
    request({ repetitionPenalty: 1e6 }),
    request({ frequencyPenalty: -1000 }),
  ], options);
  assert.ok(nDistinct(plain!) < 25, `${plain}`);
  assert.equal(nDistinct(present!), 25, `${present}`);
  assert.equal(nDistinct(frequent!), 1, `${frequent}`);
  assert.equal(plain![0], frequent![0]);
  assert.notDeepEqual(repeated, plain);
  // Requests end at other times here, so that rows of the batch move up.
  const stop = { ...options, stopIds: [plain![4]!] };
  const kinds = [{}, { presencePenalty: 1000, topK: 5 }, { minP: 0.3 }];
  const mixed = PROMPTS.map((_, i) =>
    request({ temperature: 0.9, seed: i, ...kinds[i % 3] }, i)
  );
  const together = await generate(model, mixed, stop);
  for (const [i, one] of mixed.entries()) {
    assert.deepEqual(await generate(model, [one], stop), [together[i]!]);
  }
});

Deno.test("generate() leaves forbidden tokens out and prefers those with a bias", async () => {
  using model = await loadModel(MHA);
  const [plain] = await generate(model, [request({})], options);
  const forbidden = new Map(plain!.map((id) => [id, -Infinity]));
  const [without, biased] = await generate(model, [
    request({ logitBias: forbidden }),
    request({ logitBias: new Map([[17, 100]]) }),
  ], options);
  assert.ok(without!.every((id) => !forbidden.has(id)), `${without}`);
  assert.deepEqual(biased, Array(25).fill(17));
  await rejectsInOneLine(
    () =>
      generate(model, [request({ logitBias: new Map([[131, 1]]) })], options),
    /^RangeError: Cannot bias token 131: expected an id from 0 to 130$/,
  );
});
