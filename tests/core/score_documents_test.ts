import assert from "node:assert/strict";
import { scoreDocuments } from "../../core/score_documents.ts";
import { scoreSequences } from "../../core/score.ts";
import { assertClose } from "../assert_close.ts";
import { loadModel, MHA } from "../steer/fixture_models.ts";
import { fullPass } from "../steer/full_pass.ts";

const ids = (n: number, seed: number): Uint32Array =>
  Uint32Array.from({ length: n }, (_, t) => (seed + 13 * t) % 129 + 2);

Deno.test("scoreDocuments() scores short documents as whole sequences, and long ones in windows", async () => {
  using model = await loadModel(MHA);
  const documents = [ids(20, 1), ids(1, 2), ids(64, 3), ids(150, 4), ids(2, 5)];
  const scores = await scoreDocuments(model, documents, {
    window: 64,
    stride: 40,
  });
  assert.deepEqual(scores.map(({ length }) => length), [19, 0, 63, 149, 1]);
  for (const d of [0, 2, 4]) {
    const [whole] = await scoreSequences(model, [documents[d]!]);
    assertClose(scores[d]!, whole!, { atol: 1e-5, label: `document ${d}` });
  }
  const long = documents[3]!;
  // Windows [0, 64), [40, 104), [80, 144) and [86, 150) score up to their ends.
  const parts = [[0, 64, 1], [40, 104, 64], [80, 144, 104], [86, 150, 144]];
  const want: number[] = [];
  for (const [start, end, from] of parts as [number, number, number][]) {
    const [nats] = await scoreSequences(model, [long.subarray(start, end)]);
    want.push(...nats!.subarray(from - 1 - start));
  }
  assertClose(scores[3]!, want, { atol: 1e-5, label: "windows" });
});

Deno.test("scoreDocuments() gives −ln softmax of the logits", async () => {
  using model = await loadModel(MHA);
  const document = ids(12, 7);
  const options = { window: 64, stride: 32 };
  const [nats] = await scoreDocuments(model, [document], options);
  const logits = await fullPass(model, [[...document]]);
  const { vocab_size } = model.config;
  const want = Array.from({ length: 11 }, (_, t) => {
    const row = logits.subarray(t * vocab_size, (t + 1) * vocab_size);
    const most = Math.max(...row);
    const sum = row.reduce((sum, x) => sum + Math.exp(x - most), 0);
    return most + Math.log(sum) - row[document[t + 1]!]!;
  });
  assertClose(nats!, want, { atol: 1e-5, label: "nats" });
});

Deno.test("scoreDocuments() tells before each pass what it reads", async () => {
  using model = await loadModel(MHA);
  const seen: string[] = [];
  await scoreDocuments(model, [ids(30, 1), ids(100, 2)], {
    window: 40,
    stride: 20,
    tokensPerPass: 80,
    beforePass: (windows) => {
      seen.push(
        windows.map(({ document, start, end }) => `${document}:${start}-${end}`)
          .join(" "),
      );
    },
  });
  assert.deepEqual(seen, ["0:0-30 1:0-40", "1:20-60 1:40-80", "1:60-100"]);
});
