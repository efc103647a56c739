/** Downloads that break off in every way, and go on. */
import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { countBytes } from "../../core/hub_ranges.ts";
import { LARGE_FILE, RANGE, Scene } from "./hub_scene.ts";
import { answerFile, type Asked, brokenAnswer, noise } from "./hub_server.ts";

/** Ranges of the large file that were asked for, as texts. */
const ranges = (asked: readonly Asked[]): string[] =>
  asked.map(({ start, end, isRange }) => isRange ? `${start}-${end}` : "all");

Deno.test("downloadFiles() brings large, small, empty and equal files, over several connections", async () => {
  const same = noise(500);
  await using scene = new Scene({
    "model.safetensors": noise(LARGE_FILE),
    "sub folder/größe #1.json": noise(777),
    "empty.json": noise(0),
    "same.json": same,
    "same again.json": same,
  });
  await scene.download({ nConnections: 3 });
  scene.check();
  equal(scene.hub.countAsked(), LARGE_FILE + 777 + 500);
  const nRequests = scene.hub.asked.length;
  await scene.download();
  equal(scene.hub.asked.length, 0, "what is there is not asked for");
  equal(nRequests, 6);
});

Deno.test("downloadFiles() goes on inside a range when the connection is cut at any byte", async () => {
  for (let trial = 0; trial < 12; trial++) {
    await using scene = new Scene();
    const cuts = [
      ...[0, 1, RANGE - 1],
      ...Array.from({ length: 3 }, () => Math.floor(RANGE * Math.random())),
    ];
    const label = JSON.stringify(cuts);
    const nConnections = 1 + trial % 3;
    scene.hub.misbehave = (asked, bytes) => {
      const cut = cuts.pop();
      return cut === undefined || cut >= asked.end - asked.start
        ? undefined
        : brokenAnswer(asked, bytes, cut, "cut");
    };
    await scene.download({ nConnections });
    scene.check();
    const twice = scene.hub.countAsked() - LARGE_FILE;
    ok(twice > 0 && twice <= 6 * RANGE, `${label}: ${twice} asked again`);
    ok(scene.waits.length >= 1, label);
  }
});

Deno.test("downloadFiles() tells of a connection that is cut every time, keeps what came, and the next run asks for the rest only", async () => {
  await using scene = new Scene();
  scene.hub.misbehave = (asked, bytes) =>
    asked.start < 2 * RANGE
      ? undefined
      : brokenAnswer(asked, bytes, asked.start === 2 * RANGE ? 5000 : 0, "cut");
  await rejects(scene.download(), {
    message:
      /^Cannot download "model\.safetensors" of "owner\/name": .*: run the same command again, which goes on where it stopped$/,
  });
  equal(scene.waits.length, 3);
  const [part] = scene.store.parts.values();
  equal(countBytes(part!.done), 2 * RANGE + 5000);
  scene.hub.misbehave = () => undefined;
  await scene.download();
  scene.check();
  deepEqual(ranges(scene.hub.asked), ["65000-95000", "95000-100001"]);
});

Deno.test("downloadFiles() makes a request anew when the server stalls, before and inside the body", async () => {
  await using scene = new Scene();
  const stalls = [0, 12_345];
  scene.hub.misbehave = (asked, bytes) => {
    const after = stalls.pop();
    return after === undefined
      ? undefined
      : brokenAnswer(asked, bytes, after, "stall");
  };
  await scene.download();
  scene.check();
  equal(ranges(scene.hub.asked)[1], "12345-30000");
  scene.store.files.clear();
  scene.hub.misbehave = () => new Promise<Response>(() => {});
  const gone = scene.download({ nConnections: 2 });
  await rejects(gone, { message: /no byte came for 0\.15 s: run the same/ });
});

Deno.test("downloadFiles() waits as long as a busy server asks, and tries again when it failed", async () => {
  await using scene = new Scene();
  const later = new Date(Date.now() + 20_000).toUTCString();
  const answers: [number, string?][] = [[429, "7"], [503, later], [500], [502]];
  scene.hub.misbehave = () => {
    const [status, after] = answers.shift() ?? [];
    if (status === undefined) return undefined;
    const headers: HeadersInit = after ? { "retry-after": after } : {};
    return new Response("no", { status, headers });
  };
  await scene.download({
    retries: {
      nAttempts: 5,
      random: () => 1,
      sleep: (ms) => {
        scene.waits.push(ms);
        return Promise.resolve();
      },
    },
  });
  scene.check();
  equal(scene.waits[0], 7000);
  ok(scene.waits[1]! > 18_000 && scene.waits[1]! <= 20_000);
  deepEqual(scene.waits.slice(2), [2000, 4000]);
  scene.store.files.clear();
  const headers = { "retry-after": "86400" };
  scene.hub.misbehave = () => new Response("no", { status: 429, headers });
  await rejects(scene.download(), {
    message:
      /status 429: too many requests: asks to wait 86400 s: run the same/,
  });
  equal(scene.waits.length, 4, "nobody waits a day");
});

Deno.test("downloadFiles() takes one stream from a server that knows no ranges", async () => {
  for (const nConnections of [1, 4]) {
    await using scene = new Scene();
    let nStreams = 0;
    scene.hub.misbehave = (asked, bytes) => {
      const whole = { ...asked, start: 0, end: bytes.length, isRange: false };
      if (asked.isRange) return answerFile(whole, bytes);
      nStreams++;
      return nStreams === 1
        ? brokenAnswer(whole, bytes, 44_444, "cut")
        : undefined;
    };
    await scene.download({ nConnections });
    scene.check();
    equal(nStreams, 2);
    equal(scene.waits.length, 1);
    equal(ranges(scene.hub.asked).filter((text) => text === "all").length, 2);
  }
});

Deno.test("downloadFiles() keeps what it has when the disk is full", async () => {
  await using scene = new Scene();
  const full = Object.assign(new Error("No space left on device"), {
    code: "ENOSPC",
  });
  scene.store.onWrite = (at) => {
    if (at >= 70_000) throw full;
  };
  await rejects(scene.download({ nConnections: 2 }), full);
  const [part] = scene.store.parts.values();
  const kept = countBytes(part!.done);
  ok(kept >= 2 * RANGE && kept < LARGE_FILE, `kept ${kept}`);
  scene.store.onWrite = () => {};
  await scene.download();
  scene.check();
  equal(scene.hub.countAsked(), LARGE_FILE - kept);
});

Deno.test("downloadFiles() records what came when it is aborted, and stops at once", async () => {
  await using scene = new Scene({
    "a.safetensors": noise(LARGE_FILE),
    "b.safetensors": noise(LARGE_FILE),
  });
  const controller = new AbortController();
  scene.hub.misbehave = (asked, bytes) =>
    asked.start >= RANGE
      ? brokenAnswer(asked, bytes, 20_000, "stall")
      : undefined;
  const start = performance.now();
  await rejects(
    scene.download({
      nConnections: 2,
      signal: controller.signal,
      onProgress(nBytes): void {
        if (nBytes >= 2 * RANGE) controller.abort(new Error("stopped"));
      },
    }),
    { message: "stopped" },
  );
  ok(performance.now() - start < 1000);
  const kept = scene.store.parts.values().reduce(
    (sum, { done }) => sum + countBytes(done),
    0,
  );
  ok(kept >= 2 * RANGE, `kept ${kept}`);
  scene.hub.misbehave = () => undefined;
  await scene.download();
  scene.check();
  equal(scene.hub.countAsked(), 2 * LARGE_FILE - kept);
});

Deno.test("downloadFiles() stops all files when one cannot be had", async () => {
  await using scene = new Scene({
    "a.safetensors": noise(LARGE_FILE),
    "b.safetensors": noise(LARGE_FILE),
    "z.json": noise(99),
  });
  scene.hub.misbehave = ({ file }) =>
    file === "b.safetensors" ? new Response("no", { status: 416 }) : undefined;
  await rejects(scene.download(), { message: /^Cannot download "b\.safetens/ });
  ok(scene.hub.asked.every(({ file }) => file !== "z.json"));
});
