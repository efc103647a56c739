import { deepEqual, equal, ok } from "node:assert/strict";
import { parquetWriteBuffer } from "hyparquet-writer";
import { HubClient } from "../../core/hub_client.ts";
import { firstNotCached, hubDataset } from "../../core/hub_dataset.ts";
import { memoryFolder } from "../../core/source.ts";
import { type Corpus, openCorpus } from "../../core/text.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { brokenAnswer, FakeHub, type ServedRepo } from "./hub_server.ts";

const COMMIT = "d".repeat(40);
const REPO = { type: "dataset", id: "owner/texts" } as const;
const TEXTS = Array.from(
  { length: 600 },
  (_, i) => `${i} ${String.fromCharCode(97 + i % 26).repeat(20 * i)}`,
);

function parquet(texts: readonly string[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(parquetWriteBuffer({
    columnData: [{ name: "text", data: [...texts], type: "STRING" }],
    codec: "UNCOMPRESSED",
    rowGroupSize: 100,
  }));
}

const FILES: ServedRepo["files"] = {
  "README.md": new TextEncoder().encode("# Texts"),
  "LICENSE.txt": new TextEncoder().encode("Do what you like."),
  "data/train-0.parquet": parquet(TEXTS.slice(0, 400)),
  "data/train-1.parquet": parquet(TEXTS.slice(400)),
  "lines/a.jsonl": new TextEncoder().encode('{"text":"line"}\n'),
};

/** A hub with the dataset. */
class Scene implements AsyncDisposable {
  readonly hub = new FakeHub();
  readonly waits: number[] = [];

  constructor() {
    this.hub.repos["datasets/owner/texts"] = { commit: COMMIT, files: FILES };
  }

  async corpus(
    folder: string,
    snapshot?: Readonly<Record<string, Uint8Array>>,
    signal = new AbortController().signal,
  ): Promise<Corpus> {
    const { endpoint } = this.hub;
    const client = new HubClient({ endpoint, stallMs: 5000 });
    const listing = await client.list(REPO, "main", signal);
    const address = { repo: REPO, folder, revision: COMMIT };
    const retries = {
      nAttempts: 3,
      random: () => 0,
      sleep: (ms: number): Promise<void> => {
        this.waits.push(ms);
        return Promise.resolve();
      },
    };
    const opened = hubDataset({
      address,
      listing,
      snapshot: snapshot && memoryFolder("cache", snapshot),
      reading: { client, retries, signal },
    });
    return await openCorpus("text", () => Promise.resolve(opened));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.hub[Symbol.asyncDispose]();
  }
}

async function textsOf({ read }: Corpus, first = 0): Promise<string[]> {
  const texts: string[] = [];
  for await (const { document } of read(first)) {
    texts.push("text" in document ? document.text : "");
  }
  return texts;
}

Deno.test("hubDataset() reads the parquet files of a repository by ranges, from any document on", async () => {
  await using scene = new Scene();
  const corpus = await scene.corpus("");
  deepEqual(corpus.files.map(({ name }) => name), [
    `owner/texts@${COMMIT}/data/train-0.parquet`,
    `owner/texts@${COMMIT}/data/train-1.parquet`,
  ]);
  deepEqual(await textsOf(corpus), TEXTS);
  ok(scene.hub.asked.every(({ file, isRange }) => file === "" || isRange));
  // Only the footers and the last row group.
  scene.hub.asked.length = 0;
  deepEqual(await textsOf(corpus, 590), TEXTS.slice(590));
  const total = corpus.files.reduce((sum, file) => sum + file.byteLength, 0);
  const asked = scene.hub.countAsked();
  ok(asked < 0.7 * total, `${asked} of ${total} bytes`);
  deepEqual(await textsOf(await scene.corpus("lines")), ["line"]);
  const file = "data/train-1.parquet";
  deepEqual(await textsOf(await scene.corpus(file)), TEXTS.slice(400));
});

Deno.test("hubDataset() goes on where a connection broke, and asks again when the server failed", async () => {
  await using scene = new Scene();
  let nBroken = 0;
  scene.hub.misbehave = (asked, bytes) => {
    if (asked.end - asked.start < 1000 || nBroken % 3 === 2) {
      nBroken++;
      return undefined;
    }
    return nBroken++ % 3 === 0
      ? brokenAnswer(asked, bytes, 700, "cut")
      : new Response("busy", { status: 503 });
  };
  deepEqual(await textsOf(await scene.corpus("")), TEXTS);
  ok(nBroken > 10 && scene.waits.length > 5);
});

Deno.test("hubDataset() reads what the cache has there, under the same names", async () => {
  await using scene = new Scene();
  const whole = await scene.corpus("");
  const cached = await scene.corpus("", {
    "data/train-0.parquet": FILES["data/train-0.parquet"]!,
    // In part only.
    "data/train-1.parquet": FILES["data/train-1.parquet"]!.slice(0, 100),
  });
  deepEqual(
    cached.files.map(({ name, byteLength }) => [name, byteLength]),
    whole.files.map(({ name, byteLength }) => [name, byteLength]),
  );
  scene.hub.asked.length = 0;
  deepEqual(await textsOf(cached), TEXTS);
  const files = new Set(scene.hub.asked.map(({ file }) => file));
  deepEqual([...files], ["data/train-1.parquet"]);
  const file = { path: "a", size: 1, hash: "f".repeat(40) };
  equal(await firstNotCached([file], undefined), file);
  const snapshot = memoryFolder("cache", { a: new Uint8Array(1) });
  equal(await firstNotCached([file], snapshot), undefined);
});

Deno.test("hubDataset() ends in one line when the server does not give in", async () => {
  await using scene = new Scene();
  const name = `owner/texts@${COMMIT}/data/train-0\\.parquet`;
  const cases: [FakeHub["misbehave"], RegExp][] = [
    [() => new Response("", { status: 503 }), /status 503: the server failed$/],
    [
      () =>
        new Response("", {
          status: 404,
          headers: { "x-error-code": "EntryNotFound" },
        }),
      /status 404/,
    ],
    [
      (asked, bytes) => brokenAnswer(asked, bytes, 0, "cut"),
      /(expected \d+ bytes: got 0|reading a body from connection)$/,
    ],
    [
      (_asked, bytes) =>
        new Response(bytes, {
          headers: { "content-length": `${bytes.length}` },
        }),
      /expected a server that sends ranges: got the whole file/,
    ],
  ];
  for (const [misbehave, reason] of cases) {
    scene.hub.misbehave = () => undefined;
    const corpus = await scene.corpus("");
    scene.hub.misbehave = misbehave;
    await rejectsInOneLine(
      () => textsOf(corpus),
      new RegExp(`^Error: Cannot read "${name}": .*${reason.source}`),
    );
  }
  await rejectsInOneLine(
    () => scene.corpus("none"),
    /^RangeError: Cannot read text of dataset "owner\/texts": expected parquet files or JSON lines in "none": got none of 5 files/,
  );
});
