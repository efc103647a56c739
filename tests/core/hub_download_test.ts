/** Downloads from a hub on this machine that misbehaves in every way; files are kept in memory. */
import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { HubClient } from "../../core/hub_client.ts";
import {
  downloadFiles,
  type DownloadOptions,
  type FilePart,
  type HubStore,
  type PartWriter,
} from "../../core/hub_download.ts";
import type { HubFile, HubListing } from "../../core/hub_files.ts";
import { type ByteRange, countBytes } from "../../core/hub_ranges.ts";
import {
  answerFile,
  type Asked,
  brokenAnswer,
  FakeHub,
  gitSha1,
  noise,
  sha256,
  TOKEN,
} from "./hub_server.ts";

const REPO = { type: "model", id: "owner/name" } as const;
const COMMIT = "c".repeat(40);
const RANGE = 30_000;
const LARGE_FILE = 100_001;

/** Keeps files in memory, and what a killed process would find of parts. */
class MemoryStore implements HubStore {
  readonly files = new Map<string, Uint8Array>();
  readonly parts = new Map<string, MemoryPart>();
  /** Called before each write; may throw. */
  onWrite: (at: number) => void = () => {};

  has(file: HubFile): Promise<boolean> {
    return Promise.resolve(this.files.get(file.hash)?.length === file.size);
  }

  openPart(file: HubFile): Promise<FilePart> {
    const part = this.parts.get(file.hash) ?? new MemoryPart(this, file);
    this.parts.set(file.hash, part);
    return Promise.resolve(part);
  }
}

class MemoryPart implements FilePart {
  done: ByteRange[] = [];
  nDiscarded = 0;
  readonly #store: MemoryStore;
  readonly #file: HubFile;
  #bytes: Uint8Array<ArrayBuffer>;
  #nOpen = 0;
  #nUnsynced = 0;

  constructor(store: MemoryStore, file: HubFile) {
    this.#store = store;
    this.#file = file;
    this.#bytes = new Uint8Array(file.size).fill(0xee);
  }

  openAt(position: number): Promise<PartWriter> {
    let at = position;
    this.#nOpen++;
    return Promise.resolve({
      write: (bytes): Promise<void> => {
        this.#store.onWrite(at);
        this.#bytes.set(bytes, at); // throws past the end
        at += bytes.length;
        this.#nUnsynced++;
        return Promise.resolve();
      },
      sync: (): Promise<void> => {
        this.#nUnsynced = 0;
        return Promise.resolve();
      },
      close: () => void this.#nOpen--,
    });
  }

  record(range: ByteRange): Promise<void> {
    equal(this.#nUnsynced, 0, "recorded before it was on the disk");
    this.done.push(range);
    return Promise.resolve();
  }

  hash(): Promise<string> {
    equal(this.#nOpen, 0);
    const isSha256 = this.#file.hash.length === 64;
    return Promise.resolve((isSha256 ? sha256 : gitSha1)(this.#bytes));
  }

  keep(): Promise<void> {
    this.#store.files.set(this.#file.hash, this.#bytes);
    this.#store.parts.delete(this.#file.hash);
    return Promise.resolve();
  }

  discard(): Promise<void> {
    this.done = [];
    this.nDiscarded++;
    this.#bytes.fill(0xee);
    return Promise.resolve();
  }
}

/** A hub with one repository, and a place for its files. */
class Scene implements AsyncDisposable {
  readonly hub = new FakeHub();
  readonly store = new MemoryStore();
  readonly files: Record<string, Uint8Array<ArrayBuffer>>;
  readonly waits: number[] = [];
  /** The last progress. */
  nBytes = 0;

  constructor(
    files: Record<string, Uint8Array<ArrayBuffer>> = {
      "model.safetensors": noise(LARGE_FILE),
    },
  ) {
    this.files = files;
    this.hub.repos["models/owner/name"] = { commit: COMMIT, files };
  }

  client(token?: string): HubClient {
    const { endpoint } = this.hub;
    return new HubClient({ endpoint, token, stallMs: 150 });
  }

  async download(options: Partial<DownloadOptions> = {}): Promise<void> {
    const { signal } = new AbortController();
    const client = this.client();
    const listing: HubListing = await client.list(REPO, "main", signal);
    this.hub.asked.length = 0;
    await downloadFiles(client, REPO, listing, this.store, {
      nConnections: 1,
      rangeBytes: RANGE,
      retries: {
        nAttempts: 4,
        random: () => 0,
        sleep: (ms) => {
          this.waits.push(ms);
          return Promise.resolve();
        },
      },
      signal,
      onProgress: (nBytes) => this.nBytes = nBytes,
      ...options,
    });
  }

  /** Throws unless every file is there, whole and right. */
  check(): void {
    let total = 0;
    const wanted = Object.values(this.files).map((bytes) => {
      const hash = bytes.length > 10_000 ? sha256(bytes) : gitSha1(bytes);
      deepEqual(this.store.files.get(hash), bytes);
      return [hash, bytes.length] as const;
    });
    for (const size of new Map(wanted).values()) total += size;
    equal(this.nBytes, total);
    equal(this.store.parts.size, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hub[Symbol.asyncDispose]();
  }
}

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

Deno.test("downloadFiles() sends the token to the hub, and not to the server that it redirects to", async () => {
  await using scene = new Scene({
    "config.json": noise(100),
    "model.safetensors": noise(LARGE_FILE),
  });
  const { hub } = scene;
  const { signal } = new AbortController();
  hub.repos["models/owner/name"] = {
    ...hub.repos["models/owner/name"]!,
    isGated: true,
  };
  const client = scene.client(TOKEN);
  const listing = await client.list(REPO, "main", signal);
  for (const file of listing.files) {
    const range = { start: 0, end: file.size };
    const options = { repo: REPO, commit: COMMIT, file, range, signal };
    let length = 0;
    for await (
      const chunk of client.read({ ...options, mayAskForPart: true })
    ) {
      length += chunk.length;
    }
    equal(length, file.size);
  }
  deepEqual(hub.asked.map(({ server, token }) => [server, token]), [
    ["hub", `Bearer ${TOKEN}`],
    ["hub", `Bearer ${TOKEN}`],
    ["store", null],
  ]);
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

Deno.test("downloadFiles() refuses other bytes than it asked for", async () => {
  const cases: [
    string,
    (asked: Asked, bytes: Uint8Array<ArrayBuffer>) => Response,
    RegExp,
  ][] = [
    [
      "another range",
      ({ start, end }, bytes) =>
        answerFile({ start: start + 1, end: end + 1, isRange: true }, bytes),
      /expected content-range "bytes 0-29999\/100001" from the server: got "bytes 1-30000\/100001"$/,
    ],
    [
      "another total",
      ({ start, end }, bytes) =>
        new Response(bytes.slice(start, end), {
          status: 206,
          headers: { "content-range": `bytes ${start}-${end - 1}/99` },
        }),
      /expected content-range "bytes 0-29999\/100001" .* got "bytes 0-29999\/99"$/,
    ],
    [
      "no range",
      () => new Response("x", { status: 206 }),
      /got "nothing"$/,
    ],
    [
      "a longer body",
      ({ start, end }, bytes) => {
        const body = new ReadableStream({
          start(controller): void {
            controller.enqueue(bytes.slice(start, end));
            controller.enqueue(bytes.slice(0, 1));
            controller.close();
          },
        });
        const range = `bytes ${start}-${end - 1}/${bytes.length}`;
        const headers = { "content-range": range };
        return new Response(body, { status: 206, headers });
      },
      /expected bytes \[0, 30000\) of 100001 from the server: got more$/,
    ],
    [
      "no such range",
      () => new Response("x", { status: 416 }),
      /status 416: the server failed$/,
    ],
  ];
  for (const [label, misbehave, message] of cases) {
    await using scene = new Scene();
    scene.hub.misbehave = misbehave;
    await rejects(scene.download(), (error: Error) => {
      match(error.message, message, label);
      match(
        error.message,
        /^Cannot download "model\.safetensors" of "owner\/name": /,
      );
      return true;
    });
    deepEqual(scene.waits, [], `${label} is not asked for again`);
    equal(scene.store.files.size, 0);
  }
});

Deno.test("downloadFiles() refuses a file of another length than the hub says", async () => {
  await using scene = new Scene({ "config.json": noise(100) });
  scene.hub.misbehave = () =>
    new Response(noise(101), {
      headers: { "content-length": "101" },
    });
  await rejects(scene.download(), {
    message: /expected 100 bytes from the server, as the hub says: got 101$/,
  });
  scene.hub.misbehave = () => {
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(noise(1000)),
    });
    return new Response(endless);
  };
  await rejects(scene.download(), {
    message: /of 100 from the server: got more$/,
  });
});

Deno.test("downloadFiles() fetches a damaged file once more, and then refuses it", async () => {
  for (const name of ["model.safetensors", "config.json"]) {
    const bytes = noise(name === "config.json" ? 900 : LARGE_FILE);
    const damage = ({ start, end }: Asked): Uint8Array<ArrayBuffer> => {
      const part = bytes.slice(start, end);
      part[part.length >> 1]! ^= 1;
      return part;
    };
    await using scene = new Scene({ [name]: bytes });
    let nDamaged = 1;
    scene.hub.misbehave = (asked) =>
      nDamaged-- > 0 ? answerFile(asked, bytes, damage(asked)) : undefined;
    await scene.download();
    scene.check();
    equal(scene.hub.countAsked(), 2 * bytes.length);
    scene.store.files.clear();
    nDamaged = Infinity;
    await rejects(scene.download(), {
      message:
        /^Cannot download ".*": expected contents of hash [0-9a-f]+: got [0-9a-f]+ at the second attempt too: try again later$/,
    });
    equal(scene.store.files.size, 0);
    equal(scene.hub.countAsked(), 2 * bytes.length);
    deepEqual([...scene.store.parts.values()].map(({ done }) => done), [[]]);
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

Deno.test("HubClient follows no redirect to where no file can be, nor in circles", async () => {
  await using scene = new Scene();
  const { signal } = new AbortController();
  const targets = ["file:///etc/passwd", "data:,x", "http://["];
  for (const location of targets) {
    scene.hub.misbehaveListing = () =>
      new Response(null, { status: 302, headers: { location } });
    await rejects(scene.client().list(REPO, "main", signal), {
      message: "the server redirects to where no file can be",
    });
  }
  scene.hub.misbehaveListing = () =>
    new Response(null, {
      status: 307,
      headers: { location: "/api/models/owner/name/revision/main" },
    });
  await rejects(scene.client().list(REPO, "main", signal), {
    message: "the server redirects more than 5 times",
  });
  for (const endpoint of ["", "huggingface.co", "ftp://x", "http://a@b"]) {
    await rejects(async () => await new HubClient({ endpoint, stallMs: 1 }), {
      name: "TypeError",
      message: /^Cannot use HF_ENDPOINT: /,
    });
  }
});
