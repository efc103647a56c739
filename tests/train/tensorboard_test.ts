import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { crc32c, eventRecord, histogramOf } from "../../train/tensorboard.ts";
import { decodeEvents, slowCrc32c } from "../tasks/tensorboard_events.ts";

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

Deno.test("crc32c() gives the values of RFC 3720 and of the check word", () => {
  equal(crc32c(bytesOf("")), 0);
  equal(crc32c(bytesOf("123456789")), 0xe3069283);
  equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  equal(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43);
  equal(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
  const long = Uint8Array.from({ length: 1000 }, (_, i) => i * i);
  equal(crc32c(long), slowCrc32c(long));
});

Deno.test("eventRecord() writes scalars that another decoder reads", () => {
  const [event, ...rest] = decodeEvents(eventRecord({
    wallTime: 1_764_000_000.25,
    step: 2 ** 31 + 5,
    content: {
      kind: "scalars",
      scalars: { "train/loss": 91.25, "train/λ": -1.5, "train/L0": Infinity },
    },
  }));
  deepEqual(rest, []);
  deepEqual(event, {
    wallTime: 1_764_000_000.25,
    step: 2 ** 31 + 5,
    scalars: { "train/loss": 91.25, "train/λ": -1.5, "train/L0": Infinity },
  });
});

Deno.test("eventRecord() writes the version, the start of a session and a histogram", () => {
  const of = (content: Parameters<typeof eventRecord>[0]["content"]) =>
    decodeEvents(eventRecord({ wallTime: 1, step: 40, content }))[0]!;
  equal(of({ kind: "version" }).version, "brain.Event:2");
  equal(of({ kind: "start" }).sessionStatus, 1);
  const histogram = histogramOf([-4, -3, -3, -1, NaN], 3)!;
  deepEqual(of({ kind: "histogram", tag: "density", histogram }).histogram, {
    tag: "density",
    head: [-4, -1, 4, -11, 35],
    limits: [-3, -2, -1],
    counts: [3, 0, 1],
  });
});

Deno.test("decodeEvents() of the tests notices a flipped bit and a cut record", () => {
  const content = { kind: "scalars", scalars: { loss: 1 } } as const;
  const bytes = eventRecord({ wallTime: 1, step: 2, content });
  for (const at of [0, 9, 20, bytes.length - 1]) {
    const damaged = bytes.slice();
    damaged[at]! ^= 4;
    throws(() => decodeEvents(damaged), `byte ${at}`);
  }
  throws(() => decodeEvents(bytes.subarray(0, -1)));
});

Deno.test("histogramOf() counts every finite value once, also when all are equal", () => {
  const same = histogramOf([2, 2, 2], 4)!;
  equal(same.counts.reduce((sum, n) => sum + n, 0), 3);
  ok(same.limits.at(-1)! >= 2);
  equal(histogramOf([NaN, Infinity], 4), undefined);
  equal(histogramOf([], 4), undefined);
  const values = Array.from({ length: 999 }, (_, i) => Math.sin(i) * 7);
  const many = histogramOf(values, 40)!;
  const below = (limit: number) => values.filter((v) => v <= limit).length;
  let total = 0;
  for (const [bin, limit] of many.limits.entries()) {
    total += many.counts[bin]!;
    // A value at a limit may fall to either side by rounding.
    ok(Math.abs(total - below(limit)) <= 1, `bin ${bin}`);
  }
  equal(total, 999);
});
