import assert from "node:assert/strict";
import { f32ToBf16 } from "../../core/dtype.ts";
import { bytesPerElement } from "../../gpu/mod.ts";
import { crossEntropy } from "../../kernels/cross_entropy.ts";
import { embed } from "../../kernels/embed.ts";
import { gatherRows } from "../../kernels/gather_rows.ts";
import { replaceRows } from "../../kernels/replace_rows.ts";
import { assertClose, poison } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { crossEntropyReference } from "../reference/olmo2_reference.ts";
import {
  floats,
  type HostTensor,
  poisoned,
  runKernel,
  seededTest,
  words,
} from "./run_kernel.ts";

/** The rows of a table, joined. */
function pick(table: Float32Array, width: number, rows: number[]): number[] {
  return rows.flatMap((r) => [...table.subarray(r * width, (r + 1) * width)]);
}

/** Values rounded to a 16-bit type or left as they are, stored and as numbers. */
function stored(
  dtype: "f32" | "bf16" | "f16",
  values: Float32Array<ArrayBuffer>,
): { bits: HostTensor["values"]; rounded: Float32Array } {
  if (dtype === "f32") return { bits: values, rounded: values };
  if (dtype === "f16") {
    const bits = Float16Array.from(values);
    return { bits, rounded: Float32Array.from(bits) };
  }
  const bits = f32ToBf16(values);
  const rounded = new Float32Array(
    Uint32Array.from(bits, (b) => b << 16).buffer,
  );
  return { bits, rounded };
}

for (const dtype of ["f32", "bf16", "f16"] as const) {
  seededTest(
    `embed() takes rows of a ${dtype} table in several windows`,
    async (draw) => {
      const ids = [130, 0, 64, 63, 7, 127, 130];
      const maxBindingBytes = 64 * 12 * bytesPerElement(dtype);
      using gpu = await testGpu({ maxBindingBytes });
      for (const d_model of [7, 12]) {
        const { bits, rounded } = stored(dtype, draw(131 * d_model));
        using table = gpu.upload("table", dtype, [131, d_model], bits);
        assert.equal(table.isBindable, false);
        using idsTensor = gpu.upload("ids", "u32", [7], Uint32Array.from(ids));
        using resid = gpu.floats("resid", [7, d_model], poison(7 * d_model));
        gpu.record("embed", (rec) => {
          embed(rec, { ids: idsTensor, table, resid });
        });
        // Copied bits: exact.
        assertClose(await gpu.read(resid), pick(rounded, d_model, ids), {
          label: `resid (${dtype})`,
          shape: [7, d_model],
        });
      }
    },
  );
}

seededTest(
  "embed() leaves rows alone whose ids are past the table",
  async (draw) => {
    const gpu = await testGpu();
    const before = draw(6);
    using table = gpu.floats("table", [2, 3], draw(6));
    using ids = gpu.upload("ids", "u32", [2], Uint32Array.of(2, 0xffffffff));
    using resid = gpu.floats("resid", [2, 3], before);
    gpu.record("embed", (rec) => embed(rec, { ids, table, resid }));
    assertClose(await gpu.read(resid), before, { label: "resid" });
  },
);

seededTest("gatherRows() picks rows in any order, also twice", async (draw) => {
  for (const d_model of [3, 101]) {
    const x = draw(9 * d_model);
    const rows = [8, 0, 3, 3, 8];
    const { y } = await runKernel(gatherRows, {
      x: floats([9, d_model], x),
      rows: words([5], rows),
      y: poisoned([5, d_model]),
    });
    assertClose(y!, pick(x, d_model, rows), { label: "y" });
  }
});

seededTest(
  "replaceRows() replaces from a position on, by rows or by one row",
  async (draw) => {
    const [T, d_model] = [5, 67];
    const positions = [0, 3, 4, 2, 9];
    const x = draw(T * d_model);
    for (const rows of [T, 1]) {
      const source = draw(rows * d_model);
      const got = await runKernel(replaceRows, {
        source: floats([rows, d_model], source),
        places: words([T, 2], positions.flatMap((p) => [17, p])),
        x: floats([T, d_model], x),
      }, { first_position: 3 });
      const want = positions.flatMap((position, t) =>
        position < 3
          ? pick(x, d_model, [t])
          : pick(source, d_model, [rows === 1 ? 0 : t])
      );
      assertClose(got.x!, want, { label: "x", shape: [T, d_model] });
    }
  },
);

seededTest(
  "crossEntropy() matches float64, and is 0 without a target",
  async (draw) => {
    for (const [vocab, scale] of [[5, 1], [211, 4], [1003, 60]] as const) {
      const targets = [0, vocab - 1, 2, vocab, 0xffffffff, 3];
      const T = targets.length;
      // At ±1e4, exp overflows or vanishes if the largest logit is not taken off.
      for (const offset of [0, 1e4, -1e4]) {
        const logits = draw(T * vocab, scale).map((x) => x + offset);
        const { nll } = await runKernel(crossEntropy, {
          logits: floats([T, vocab], logits),
          targets: words([T], targets),
          nll: poisoned([T]),
        });
        const want = targets.map((target, t) =>
          crossEntropyReference(
            logits.subarray(t * vocab, t * vocab + vocab),
            target,
          )
        );
        // Two roundings at the size of the logits, and 2e-6 for exp and the sum.
        const atol = 2e-6 + 2 ** -23 * (Math.abs(offset) + 6 * scale);
        assertClose(nll!, want, { atol, label: `nll (vocab ${vocab})` });
      }
    }
  },
);
