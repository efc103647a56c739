import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import {
  countBytes,
  formatRange,
  mergeRanges,
  missingRanges,
  parseRanges,
} from "../../core/hub_ranges.ts";
import {
  parseRetryAfter,
  REAL_TIME,
  RequestError,
  waitMs,
  withRetries,
} from "../../core/retry.ts";

const range = (start: number, end: number) => ({ start, end });

Deno.test("missingRanges() covers exactly what is not done, in pieces", () => {
  deepEqual(missingRanges(0, [], 4), []);
  deepEqual(missingRanges(10, [], 4), [range(0, 4), range(4, 8), range(8, 10)]);
  deepEqual(missingRanges(10, [range(0, 10)], 4), []);
  for (let trial = 0; trial < 200; trial++) {
    const size = Math.floor(60 * Math.random());
    const random = (n: number): number => Math.floor((n + 1) * Math.random());
    const done = Array.from({ length: random(5) }, () => {
      const start = random(size);
      return range(start, start + random(size - start));
    });
    const pieceBytes = 1 + random(20);
    const missing = missingRanges(size, done, pieceBytes);
    const seen = new Uint8Array(size);
    for (const { start, end } of mergeRanges(done)) seen.fill(1, start, end);
    equal(countBytes(done), seen.reduce((sum, n) => sum + n, 0));
    for (const { start, end } of missing) {
      ok(end > start && end - start <= pieceBytes);
      for (let at = start; at < end; at++) equal(seen[at]!++, 0);
    }
    ok(seen.every((n) => n === 1), JSON.stringify({ size, done, pieceBytes }));
  }
});

Deno.test("parseRanges() takes back what was written, but for a line that was cut", () => {
  const lines = [range(8, 16), range(0, 4), range(4, 8)].map(formatRange);
  deepEqual(parseRanges(lines.join(""), 20), [range(0, 16)]);
  for (let length = 0; length <= lines.join("").length; length++) {
    const text = lines.join("").slice(0, length);
    const whole = lines.filter((_, i) =>
      text.length >= lines.slice(0, i + 1).join("").length
    );
    deepEqual(parseRanges(text, 20), parseRanges(whole.join(""), 20));
  }
  const damaged = ["0 30\n", "5 3\n", "0 4 5\n", "x\n", "0 4\n\n", "-1 4\n"];
  for (const log of damaged) deepEqual(parseRanges(log, 20), [], log);
});

Deno.test("parseRetryAfter() reads seconds and dates", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  equal(parseRetryAfter("7", now), 7000);
  equal(parseRetryAfter("Thu, 01 Jan 2026 00:01:00 GMT", now), 60_000);
  equal(parseRetryAfter("Wed, 31 Dec 2025 00:00:00 GMT", now), 0);
  equal(parseRetryAfter(null, now), 0);
  equal(parseRetryAfter("soon", now), 0);
  ok(!(parseRetryAfter("-5", now) < 0));
});

/** Runs attempts that fail as they are told, and tells the waits. */
async function run(
  failures: readonly Error[],
  nAttempts: number,
  nBytes: () => number = () => 0,
): Promise<{ waits: number[]; nDone: number }> {
  const waits: number[] = [];
  let nDone = 0;
  const sleep = (ms: number): Promise<void> => {
    waits.push(ms);
    return Promise.resolve();
  };
  const policy = { nAttempts, sleep, random: () => 1 };
  const attempt = (): Promise<void> => {
    const failure = failures[nDone++];
    return failure ? Promise.reject(failure) : Promise.resolve();
  };
  await withRetries(policy, new AbortController().signal, attempt, nBytes);
  return { waits, nDone };
}

const passing = (retryAfterMs = 0): RequestError =>
  new RequestError("busy", { mayPass: true, retryAfterMs });

Deno.test("withRetries() waits longer and longer, as long as it is asked, and not forever", async () => {
  const three = [passing(), passing(), passing()];
  deepEqual(await run(three, 4), { waits: [500, 1000, 2000], nDone: 4 });
  await rejects(run(three, 3), { message: "busy" });
  deepEqual((await run([passing(9000), passing(1)], 9)).waits, [9000, 1000]);
  await rejects(run([passing(3_600_000)], 9), { message: "busy" });
  await rejects(run([new RequestError("no")], 9), { message: "no" });
  await rejects(run([new Error("bug")], 9), { message: "bug" });
  ok(waitMs(50, 1) <= 20_000 && waitMs(1, 0) === 250);
});

Deno.test("withRetries() counts failures anew when bytes have come in between, but not for a few", async () => {
  const many = Array.from({ length: 20 }, () => passing());
  let at = 0;
  const { waits } = await run(many, 2, () => at += 100_000);
  deepEqual(new Set(waits), new Set([500]));
  let few = 0;
  await rejects(run(many, 2, () => few += 10), { message: "busy" });
});

Deno.test("withRetries() stops waiting when it is aborted", async () => {
  const controller = new AbortController();
  const failing = (): Promise<void> => Promise.reject(passing(200_000));
  const policy = { ...REAL_TIME, nAttempts: 5 };
  const running = withRetries(policy, controller.signal, failing);
  setTimeout(() => controller.abort(new Error("stopped")), 10);
  await rejects(running, { message: "stopped" });
});
