import {
  MAX_STEERED_FEATURES,
  NO_THRESHOLD,
  steer,
  STEER_MODES,
} from "../../kernels/steer.ts";
import { assertClose } from "../assert_close.ts";
import {
  type SteerEntry,
  steerReference,
} from "../reference/steer_reference.ts";
import {
  type Draw,
  floats,
  runKernel,
  seededTest,
  words,
} from "./run_kernel.ts";

type Action = Pick<SteerEntry, "mode" | "value" | "linear" | "threshold">;

/** Entries with directions of length about 1, whose activations are of either sign. */
function drawEntries(
  draw: Draw,
  d_model: number,
  actions: readonly Action[],
): SteerEntry[] {
  return actions.map((action) => ({
    ...action,
    W_enc: draw(d_model, d_model ** -0.5),
    W_dec: draw(d_model, d_model ** -0.5),
    b_enc: draw(1, 0.5)[0]!,
  }));
}

/** Steers rows with ranges of entries and compares with float64. */
async function checkSteer(
  draw: Draw,
  d_model: number,
  entries: readonly SteerEntry[],
  ranges: readonly (readonly [number, number])[],
): Promise<void> {
  const T = ranges.length;
  const x = draw(T * d_model, 3);
  const join = (name: "W_enc" | "W_dec") =>
    floats(
      [entries.length, d_model],
      Float32Array.from(
        entries.flatMap((entry) => [...Array.from(entry[name])]),
      ),
    );
  const bits = (value: number) =>
    new Uint32Array(Float32Array.of(value).buffer)[0]!;
  const packed = entries.flatMap((
    { b_enc, mode, value, linear, threshold = 0 },
  ) => [
    bits(b_enc),
    STEER_MODES[mode],
    bits(value),
    bits(linear ? NO_THRESHOLD : threshold),
  ]);
  const got = await runKernel(steer, {
    W_enc: join("W_enc"),
    W_dec: join("W_dec"),
    entry: words([entries.length, 4], packed),
    ranges: words([T, 2], ranges.flat()),
    x: floats([T, d_model], x),
  });
  const want = ranges.flatMap(([from, to], t) => [
    ...steerReference(
      x.subarray(t * d_model, (t + 1) * d_model),
      entries.slice(from, to),
    ),
  ]);
  // Activations of size 10 and values up to 40 times directions of size 1, over a few entries: 1e-6 of about 100.
  assertClose(got.x!, want, { atol: 1e-4, label: "x", shape: [T, d_model] });
}

const modes = Object.keys(STEER_MODES) as SteerEntry["mode"][];

for (const mode of modes) {
  seededTest(
    `steer() does ${mode} as float64 does, with relu, a threshold and neither`,
    async (draw) => {
      for (const d_model of [5, 100]) {
        const encodings = [
          { linear: false },
          { linear: true },
          { linear: false, threshold: 2 },
        ];
        const actions = encodings.flatMap((encoding) =>
          [0, 2.5, -1.5, 40].map((value) => ({ mode, value, ...encoding }))
        );
        const entries = drawEntries(draw, d_model, actions);
        // One entry for each token, over tokens with other activations.
        const ranges = [...entries.keys(), ...entries.keys()]
          .map((e) => [e, e + 1] as const);
        await checkSteer(draw, d_model, entries, ranges);
      }
    },
  );
}

seededTest(
  "steer() takes all activations before it changes anything",
  async (draw) => {
    const actions = modes.flatMap((mode) => [
      { mode, value: 3, linear: false },
      { mode, value: 0.5, linear: true },
    ]);
    for (const d_model of [7, 130]) {
      const entries = drawEntries(draw, d_model, actions);
      const ranges = [[0, 8], [2, 5], [3, 3], [7, 8], [5, 2]] as const;
      await checkSteer(draw, d_model, entries, ranges);
    }
  },
);

seededTest(
  "steer() leaves rows with an empty range exactly as they were",
  async (draw) => {
    const x = draw(3 * 9);
    const got = await runKernel(steer, {
      W_enc: floats([1, 9], draw(9)),
      W_dec: floats([1, 9], draw(9)),
      entry: words([1, 4], [0, STEER_MODES.add, 0x7fc00000, 0]),
      ranges: words([3, 2], [0, 0, 1, 1, 1, 0]),
      x: floats([3, 9], x),
    });
    assertClose(got.x!, x, { label: "x" });
  },
);

seededTest("steer() takes as many features as it promises", async (draw) => {
  const actions = Array.from(
    { length: MAX_STEERED_FEATURES },
    (_, e) => ({
      mode: modes[e % 4]!,
      value: (e % 7) / 100,
      linear: e % 3 === 0,
    }),
  );
  const entries = drawEntries(draw, 33, actions);
  await checkSteer(draw, 33, entries, [[0, MAX_STEERED_FEATURES]]);
});
