import { deepEqual, equal } from "node:assert/strict";
import { bf16ToF32 } from "../../core/dtype.ts";
import { ResidualFolder } from "../../core/residuals.ts";
import { memoryFolder } from "../../core/source.ts";
import { doublingRanges, residualStats } from "../../train/residual_stats.ts";
import { assertClose } from "../assert_close.ts";
import { madeFolder, madeRows } from "./made_residuals.ts";

Deno.test("residualStats() measures norms, mean and tokens of all shards", async () => {
  const files = madeFolder({ shards: [30, 20] });
  const folder = await ResidualFolder.open(memoryFolder("r", files));
  const stats = await residualStats(folder);
  const x = [madeRows(0, 30), madeRows(1, 20)].flatMap((rows) => [
    ...bf16ToF32(rows),
  ]);
  const norms = Array.from(
    { length: 50 },
    (_, i) => Math.hypot(...x.slice(3 * i, 3 * i + 3)),
  );
  const mean = [0, 1, 2].map((j) =>
    x.filter((_, i) => i % 3 === j).reduce((sum, v) => sum + v / 50, 0)
  );
  const meanNorm = norms.reduce((sum, norm) => sum + norm / 50, 0);
  const variance = x.reduce(
    (sum, v, i) => sum + (v - mean[i % 3]!) ** 2 / 50,
    0,
  );
  // Sums of 150 float64 values in another order.
  const near = (got: number, want: number, label: string): void =>
    assertClose([got], [want], { rtol: 1e-12, atol: 1e-12, label });
  equal(stats.n, 50);
  near(stats.meanNorm, meanNorm, "meanNorm");
  near(stats.minNorm, Math.min(...norms), "minNorm");
  near(stats.maxNorm, Math.max(...norms), "maxNorm");
  near(stats.scale, Math.sqrt(3) / meanNorm, "scale");
  near(stats.normOfMean, Math.hypot(...mean), "normOfMean");
  near(stats.variance, variance, "variance");
  assertClose(stats.mean, mean, { rtol: 1e-12, atol: 1e-12, label: "mean" });
  equal(stats.byPosition.length, 10);
  const third = norms.filter((_, i) => i % 10 === 3);
  equal(stats.byPosition[3]!.n, 5);
  near(
    stats.byPosition[3]!.meanNorm,
    third.reduce((sum, norm) => sum + norm / 5, 0),
    "norm at 3",
  );
  // Ids count from 0 in each shard: 0 to 19 are there twice.
  equal(stats.nTokenIds, 30);
  deepEqual(stats.tokens[19], { id: 19, n: 2, share: 0.04 });
});

Deno.test("residualStats() says nothing of positions and tokens that are not recorded", async () => {
  const fixture = new URL(
    "../fixtures/residual-parquet/rank0_chunk0.parquet",
    import.meta.url,
  );
  const folder = await ResidualFolder.open(
    memoryFolder("r", { "a.parquet": await Deno.readFile(fixture) }),
  );
  const { n, d_model, byPosition, tokens, nTokenIds } = await residualStats(
    folder,
  );
  deepEqual([n, d_model, byPosition, tokens, nTokenIds], [300, 192, [], [], 0]);
});

Deno.test("doublingRanges() weighs the mean norms of positions by their vectors", () => {
  const at = (position: number, n: number, meanNorm: number) => ({
    from: position,
    to: position,
    n,
    meanNorm,
  });
  deepEqual(
    doublingRanges([
      at(0, 1, 9),
      at(1, 2, 5),
      at(2, 1, 4),
      at(3, 3, 8),
      at(5, 1, 2),
    ]),
    [
      at(0, 1, 9),
      at(1, 2, 5),
      { from: 2, to: 3, n: 4, meanNorm: 7 },
      { from: 4, to: 7, n: 1, meanNorm: 2 },
    ],
  );
});
