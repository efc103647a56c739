import { klDivergence } from "../../kernels/kl_divergence.ts";
import { assertClose } from "../assert_close.ts";
import { floats, poisoned, runKernel, seededTest } from "./run_kernel.ts";

/** log softmax in float64. */
function logShares(logits: Float32Array): Float64Array {
  const values = Float64Array.from(logits);
  const most = values.reduce((a, b) => Math.max(a, b));
  const total = values.reduce((sum, x) => sum + Math.exp(x - most), 0);
  return values.map((x) => x - most - Math.log(total));
}

seededTest(
  "klDivergence() matches float64, whatever is added to the logits, and is 0 of the same ones",
  async (draw) => {
    for (const [vocab, scale] of [[5, 1], [211, 4], [1003, 20]] as const) {
      const T = 5;
      for (const offset of [0, 1e3]) {
        const p = draw(T * vocab, scale);
        const q = draw(T * vocab, scale).map((x) => x + offset);
        q.set(p.subarray(0, vocab)); // the first row is the same
        const { kl } = await runKernel(klDivergence, {
          logits_p: floats([T, vocab], p),
          logits_q: floats([T, vocab], q),
          kl: poisoned([T]),
        });
        const want = Array.from({ length: T }, (_, t) => {
          const row = (x: Float32Array) =>
            logShares(x.subarray(t * vocab, (t + 1) * vocab));
          const [log_p, log_q] = [row(p), row(q)];
          return log_p.reduce(
            (sum, log, v) => sum + Math.exp(log) * (log - log_q[v]!),
            0,
          );
        });
        // Roundings at the size of the logits and their differences, and 1e-5 for exp and the sums.
        const atol = 1e-5 * (1 + scale) + 2 ** -22 * (offset + 8 * scale);
        assertClose(kl!, want, { atol, label: `kl (vocab ${vocab})` });
      }
    }
  },
);
