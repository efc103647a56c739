import { Sae } from "../../core/sae.ts";
import { scoreSequences } from "../../core/score.ts";
import { lossRecovered } from "../../train/loss_recovered.ts";
import { SplicePass } from "../../train/splice_pass.ts";
import { assertClose } from "../assert_close.ts";
import { Embedded } from "../steer/embedded.ts";

/** Documents of the storybook, of different lengths. */
async function sequencesOf(embedded: Embedded): Promise<Uint32Array[]> {
  const documents = await Array.fromAsync(embedded.documents(7, 3));
  return documents.map(({ ids }, i) => ids.slice(0, 12 + 5 * i));
}

const meanOf = (nll: Float32Array, lengths: readonly number[]): number => {
  let [sum, first] = [0, 0];
  for (const length of lengths) {
    for (let t = first; t < first + length - 1; t++) sum += nll[t]!;
    first += length;
  }
  return sum / (first - lengths.length);
};

Deno.test("SplicePass predicts as the model and the spliced SAE do, and as zeros at every position do", async () => {
  using embedded = await Embedded.load();
  const { model, sae, hookPoint, layer } = embedded;
  const sequences = await sequencesOf(embedded);
  const lengths = sequences.map(({ length }) => length);
  const T = lengths.reduce((sum, n) => sum + n, 0);
  using pass = new SplicePass(model, sae, layer, T + 5);
  const first = await pass.run(sequences);
  const again = await pass.run(sequences);
  // The same sums with tiles of other sizes.
  const options = { atol: 2e-4, label: "nll" };
  const alone = await scoreSequences(model, sequences);
  let at = 0;
  for (const [i, nll] of alone.entries()) {
    assertClose(first.nll.model.subarray(at, at + nll.length), nll, options);
    at += lengths[i]!;
  }
  const loss = await lossRecovered({
    ...{ model, sae, hookPoint, sequences },
    mean: new Float32Array(sae.d_model),
  });
  assertClose(
    [meanOf(first.nll.model, lengths), meanOf(first.nll.sae, lengths)],
    [loss.ceModel, loss.ceSae],
    { atol: 1e-5, label: "cross-entropies" },
  );
  assertClose(again.nll.zero, first.nll.zero, { atol: 0, label: "again" });
  // Zeros everywhere lose the context: equal tokens are predicted alike wherever they stand.
  const perToken = new Map<number, number>();
  const klOf = sequences.flatMap((ids) => [...ids]).map((_, t) => {
    const next = sequences.flatMap((ids) => [...ids.slice(1), -1])[t]!;
    const nll = first.nll.zero[t]!;
    if (next < 0) return 0;
    const before = perToken.get(next) ?? nll;
    perToken.set(next, before);
    return nll - before;
  });
  assertClose(klOf, klOf.map(() => 0), { atol: 2e-4, label: "zeros" });
});

Deno.test("SplicePass gives the stream and its reconstruction; a perfect SAE diverges by nothing", async () => {
  using embedded = await Embedded.load();
  const { model, layer } = embedded;
  const d_model = model.config.d_model;
  const sequences = await sequencesOf(embedded);
  const T = sequences.reduce((sum, { length }) => sum + length, 0);
  // relu(x) − relu(−x) = x
  const rows = (start: number, end: number) =>
    Promise.resolve(Float32Array.from(
      { length: (end - start) * d_model },
      (_, at) => {
        const i = start + Math.floor(at / d_model);
        return i % d_model === at % d_model ? i < d_model ? 1 : -1 : 0;
      },
    ));
  using identity = await Sae.load(model.gpu, {
    d_model,
    d_sae: 2 * d_model,
    rowsOfEncoder: rows,
    rowsOfDecoder: rows,
    b_enc: () => Promise.resolve(new Float32Array(2 * d_model)),
    b_dec: () => Promise.resolve(new Float32Array(d_model)),
  });
  using pass = new SplicePass(model, identity, layer, T);
  const { x, xHat, kl, nll } = await pass.run(sequences);
  assertClose(xHat, x, { atol: 1e-4, rtol: 1e-6, label: "x_hat" });
  const zeros = new Float32Array(T);
  // Noise of f32 in logits of up to 20.
  assertClose(kl.sae, zeros, { atol: 1e-5, label: "kl" });
  assertClose(nll.sae, nll.model, { atol: 2e-4, label: "nll" });
});
