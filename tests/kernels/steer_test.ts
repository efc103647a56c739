import assert from "node:assert/strict";
import {
  ENTRY_WORDS,
  MAX_STEERED_FEATURES,
  NO_SLOT,
  NO_THRESHOLD,
  STEER_MODES,
  steerKernel,
} from "../../kernels/steer.ts";
import { assertClose, poison } from "../assert_close.ts";
import {
  activationReference,
  type SteerEntry,
  steerReference,
} from "../reference/steer_reference.ts";
import {
  type Draw,
  floats,
  poisoned,
  runKernel,
  seededTest,
  words,
} from "./run_kernel.ts";

type Action = Omit<SteerEntry, "W_enc" | "W_dec" | "b_enc">;

/** An entry, and where its activation is captured. */
type Entry = SteerEntry & { readonly slot?: number };

/** Entries with directions of length about 1, whose activations are of either sign. */
function drawEntries(
  draw: Draw,
  d_model: number,
  actions: readonly (Action & { readonly slot?: number })[],
): Entry[] {
  return actions.map((action) => ({
    ...action,
    W_enc: draw(d_model, d_model ** -0.5),
    W_dec: draw(d_model, d_model ** -0.5),
    b_enc: draw(1, 0.5)[0]!,
  }));
}

const bits = (value: number): number =>
  new Uint32Array(Float32Array.of(value).buffer)[0]!;

/** The kernel's words of entries whose rows lie in the order of `rows`. */
function packed(
  entries: readonly Entry[],
  rows: readonly number[],
): number[] {
  return entries.flatMap((entry, e) => [
    bits(entry.b_enc),
    STEER_MODES[entry.mode],
    bits(entry.value),
    bits(entry.linear ? NO_THRESHOLD : entry.threshold ?? 0),
    entry.after ?? 0,
    entry.decay ?? 0,
    entry.slot ?? NO_SLOT,
    rows[e]!,
  ]);
}

/** A token's first entry, one past the last, and n. */
type Token = readonly [first: number, end: number, n: number];

/** Rows of entries, the last entry's first, so that order and place differ. */
function rowsOf(entries: readonly Entry[]): number[] {
  return entries.map((_, e) => entries.length - 1 - e);
}

interface Run {
  readonly d_model: number;
  readonly entries: readonly Entry[];
  readonly tokens: readonly Token[];
  readonly x: Float32Array<ArrayBuffer>;
  /** Columns of acts; none are captured without it. */
  readonly nSlots?: number;
}

/** Launches the kernel; acts were NaN before. */
async function runSteer(
  { d_model, entries, tokens, x, nSlots }: Run,
): Promise<{ x: Float32Array; acts: Float32Array }> {
  const T = tokens.length;
  const rows = rowsOf(entries);
  const matrix = (name: "W_enc" | "W_dec") => {
    const values = new Float32Array(entries.length * d_model);
    for (const [e, entry] of entries.entries()) {
      values.set(entry[name], rows[e]! * d_model);
    }
    return floats([entries.length, d_model], values);
  };
  const got = await runKernel(steerKernel(d_model), {
    W_enc: matrix("W_enc"),
    W_dec: matrix("W_dec"),
    entry: words([entries.length, ENTRY_WORDS], packed(entries, rows)),
    tokens: words([T, 4], tokens.flatMap((token) => [...token, 0])),
    x: floats([T, d_model], x),
    acts: poisoned(nSlots === undefined ? [1, 1] : [T, nSlots]),
  }, { n_captured: nSlots ?? 0 });
  return { x: got["x"]!, acts: got["acts"]! };
}

const rowOf = (x: Float32Array, t: number, d_model: number): Float32Array =>
  x.subarray(t * d_model, (t + 1) * d_model);

/** Steers rows with ranges of entries and compares with float64. */
async function checkSteer(
  draw: Draw,
  d_model: number,
  entries: readonly Entry[],
  tokens: readonly Token[],
  nSlots?: number,
): Promise<void> {
  const T = tokens.length;
  const x = draw(T * d_model, 3);
  const got = await runSteer({
    d_model,
    entries,
    tokens,
    x,
    ...(nSlots !== undefined && { nSlots }),
  });
  const want = tokens.flatMap(([from, to, n], t) => [
    ...steerReference(rowOf(x, t, d_model), entries.slice(from, to), n),
  ]);
  // Activations of size 10 and values up to 40 times directions of size 1, over a few entries: 1e-6 of about 100.
  assertClose(got.x, want, { atol: 1e-4, label: "x", shape: [T, d_model] });
  const acts = poison(got.acts.length);
  if (nSlots !== undefined) {
    for (const [t, [from, to]] of tokens.entries()) {
      for (const entry of entries.slice(from, to)) {
        if (entry.slot === undefined) continue;
        acts[t * nSlots + entry.slot] = activationReference(
          rowOf(x, t, d_model),
          entry,
        );
      }
    }
  }
  assert.deepEqual(
    Array.from(got.acts, Number.isNaN),
    Array.from(acts, Number.isNaN),
    "acts are written where they are captured, and nowhere else",
  );
  const zeroed = (values: Float32Array): Float32Array =>
    values.map((value) => Number.isNaN(value) ? 0 : value);
  assertClose(zeroed(got.acts), zeroed(acts), { atol: 1e-5, label: "acts" });
}

const modes = ["clamp", "add", "min", "scale"] as const;

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
        const tokens = [...entries.keys(), ...entries.keys()]
          .map((e): Token => [e, e + 1, e]);
        await checkSteer(draw, d_model, entries, tokens);
      }
    },
  );
}

seededTest(
  "steer() takes all activations before it changes anything",
  async (draw) => {
    const actions = [...modes, ...modes].flatMap((mode) => [
      { mode, value: 3, linear: false },
      { mode, value: 0.5, linear: true },
    ]);
    for (const d_model of [7, 130, 257, 260]) {
      const entries = drawEntries(draw, d_model, actions);
      // All counts of entries up to two batches and beyond, and ranges that are empty or the wrong way round.
      const tokens: Token[] = [...entries.keys(), 16].map((n) => [0, n, 0]);
      tokens.push([2, 5, 0], [3, 3, 0], [7, 8, 1], [5, 2, 0], [1, 16, 9]);
      await checkSteer(draw, d_model, entries, tokens);
    }
  },
);

seededTest(
  "steer() begins after the tokens that it is told to leave, and fades over others",
  async (draw) => {
    const schedules = [
      { after: 0 },
      { after: 1 },
      { after: 3 },
      { decay: 1 },
      { decay: 7 },
      { after: 4, decay: 5 },
      { after: 2 ** 32 - 1 },
    ];
    const actions = modes.flatMap((mode) =>
      schedules.map((schedule) => ({
        mode,
        value: 2,
        linear: false,
        ...schedule,
      }))
    );
    for (const d_model of [64, 66]) {
      const entries = drawEntries(draw, d_model, actions);
      const alone = entries.flatMap((_, e) =>
        [...Array(12).keys(), 2 ** 31].map((n): Token => [e, e + 1, n])
      );
      await checkSteer(draw, d_model, entries, alone);
      const together = [0, 1, 2, 3, 5, 8, 9, 2 ** 32 - 1].map((n): Token => [
        0,
        entries.length,
        n,
      ]);
      await checkSteer(draw, d_model, entries, together);
    }
  },
);

seededTest(
  "steer() leaves rows exactly as they were when nothing acts on them",
  async (draw) => {
    for (const d_model of [9, 12]) {
      const x = draw(7 * d_model);
      const add = { mode: "add", value: NaN, linear: false } as const;
      const entries = drawEntries(draw, d_model, [
        add,
        { ...add, mode: "watch" },
        { ...add, after: 3 },
        { ...add, after: 1, decay: 4 },
      ]);
      const got = await runSteer({
        d_model,
        entries,
        // Empty; watched; not yet begun; faded.
        tokens: [
          ...[[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 2, 0]],
          ...[[1, 3, 2], [3, 4, 5], [3, 4, 99]],
        ] as unknown as Token[],
        x,
        nSlots: 1,
      });
      assert.deepEqual(got.x, x);
    }
  },
);

seededTest(
  "steer() captures activations before it changes them, of entries that act, that do not yet, and that only watch",
  async (draw) => {
    const actions = [...modes, "watch" as const].flatMap((mode, i) =>
      [false, true].map((linear, j) => ({
        mode,
        value: 3,
        linear,
        after: i,
        ...(i % 2 === 0 && { decay: 3 }),
        ...((i + j) % 3 !== 0 && { slot: 9 - 2 * i - j }),
      }))
    );
    for (const d_model of [31, 192]) {
      const entries = drawEntries(draw, d_model, actions);
      const tokens = [0, 1, 2, 7].flatMap((n): Token[] => [
        [0, 10, n],
        [3, 3, n],
        [2, 9, n],
        [9, 10, n],
      ]);
      await checkSteer(draw, d_model, entries, tokens, 10);
      await checkSteer(draw, d_model, entries, tokens);
    }
  },
);

for (const d_model of [33, 36]) {
  seededTest(
    `steer() takes as many features as it promises when d_model is ${d_model}`,
    async (draw) => {
      const actions = Array.from(
        { length: MAX_STEERED_FEATURES },
        (_, e) => ({
          mode: modes[e % 4]!,
          value: (e % 7) / 100,
          linear: e % 3 === 0,
          ...(e % 500 === 499 && { slot: Math.floor(e / 500) }),
        }),
      );
      const entries = drawEntries(draw, d_model, actions);
      const tokens: Token[] = [
        [0, MAX_STEERED_FEATURES, 0],
        [1000, 1301, 5],
      ];
      // 2,048 changes of size 1 in directions of size 1/6: f32 errs by about 1e-3 of their largest sums of 30.
      const x = draw(2 * d_model, 3);
      const got = await runSteer({ d_model, entries, tokens, x, nSlots: 4 });
      const want = tokens.flatMap(([from, to, n], t) => [
        ...steerReference(rowOf(x, t, d_model), entries.slice(from, to), n),
      ]);
      assertClose(got.x, want, { atol: 1e-3, label: "x" });
      const acts = [499, 999, 1499, 1999].map((e) =>
        activationReference(rowOf(x, 0, d_model), entries[e]!)
      );
      assertClose(got.acts.subarray(0, 4), acts, { atol: 1e-5, label: "acts" });
    },
  );
}

for (const d_model of [70, 72]) {
  seededTest(
    `steer() keeps NaN visible when d_model is ${d_model}`,
    async (draw) => {
      const x = draw(3 * d_model);
      x[d_model + 66] = NaN;
      x[2 * d_model] = Infinity;
      const entries = drawEntries(
        draw,
        d_model,
        [...modes, "watch" as const].map((mode, slot) => ({
          mode,
          value: 2,
          linear: false,
          slot,
        })),
      );
      const tokens: Token[] = [[0, 5, 0], [0, 5, 0], [0, 5, 0]];
      const got = await runSteer({ d_model, entries, tokens, x, nSlots: 5 });
      const isFinite = (values: Float32Array) => values.every(Number.isFinite);
      assert.ok(isFinite(rowOf(got.x, 0, d_model)));
      assert.ok(isFinite(got.acts.subarray(0, 5)));
      assert.ok(got.acts.subarray(5, 10).every(Number.isNaN));
      assert.ok(Number.isNaN(got.x[d_model + 66]));
      assert.ok(!isFinite(rowOf(got.x, 1, d_model).subarray(0, 60)));
      assert.ok(!isFinite(rowOf(got.x, 2, d_model)));
    },
  );
}
