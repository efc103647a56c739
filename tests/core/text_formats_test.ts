import { deepEqual, equal } from "node:assert/strict";
import { constants, gzipSync, zstdCompressSync } from "node:zlib";
import { parquetWriteBuffer } from "hyparquet-writer";
import { crc32 } from "../../core/gunzip.ts";
import { Rng } from "../../core/rng.ts";
import { memoryFolder } from "../../core/source.ts";
import {
  type Corpus,
  type CorpusOptions,
  openCorpus,
} from "../../core/text.ts";
import { Xxh64 } from "../../core/xxh64.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

/** Texts of words and odd characters, each with its number. */
function madeTexts(n: number, seed: number): string[] {
  const rng = new Rng(seed);
  const words = ["the", "dragon", "flew", "über", "東京", "\u{1F409}", "ninth"];
  return Array.from({ length: n }, (_, i) => {
    const nWords = rng.below(30) === 0 ? 4000 : 1 + rng.below(20);
    const text = Array.from({ length: nWords }, () => words[rng.below(7)]!);
    return `${i}: ${text.join(" ")}`;
  });
}

const TEXTS = madeTexts(700, 5);
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const lines = (texts: readonly string[]): Uint8Array =>
  bytesOf(texts.map((text) => `${JSON.stringify({ text })}\n`).join(""));
const JSONL = lines(TEXTS);
const TXT = bytesOf(TEXTS.join("\n\n"));

function zstd(bytes: Uint8Array, checksum = 1): Uint8Array {
  const params = { [constants.ZSTD_c_checksumFlag]: checksum };
  return new Uint8Array(zstdCompressSync(bytes, { params }));
}

function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

function parquet(texts: readonly string[]): Uint8Array {
  return new Uint8Array(parquetWriteBuffer({
    columnData: [
      { name: "id", data: texts.map((_, i) => i), type: "INT32" },
      { name: "text", data: [...texts], type: "STRING" },
    ],
    rowGroupSize: 100,
  }));
}

/** The same texts in every format. */
const FILES: Readonly<Record<string, Uint8Array>> = {
  "a.txt": TXT,
  "a.txt.gz": gzipSync(TXT),
  "a.txt.zst": zstd(TXT),
  "a.jsonl": JSONL,
  "a.jsonl.gz": gzipSync(JSONL),
  // Members that end inside a line, one of them empty, with a name in their head.
  "members.json.gz": joined(
    gzipSync(JSONL.subarray(0, 4001)),
    gzipSync(new Uint8Array(0)),
    Uint8Array.of(31, 139, 8, 8, 0, 0, 0, 0, 0, 3, 97, 46, 99, 0),
    gzipSync(JSONL.subarray(4001)).subarray(10),
  ),
  "a.jsonl.zst": zstd(JSONL),
  // Frames with and without checksums, and one that is to be skipped.
  "frames.json.zst": joined(
    zstd(JSONL.subarray(0, 4001)),
    Uint8Array.of(0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3),
    zstd(JSONL.subarray(4001), 0),
  ),
  "a.parquet": parquet(TEXTS),
};

function open(
  files: Readonly<Record<string, Uint8Array>>,
  name: string,
  options?: CorpusOptions,
): Promise<Corpus> {
  const folder = memoryFolder("corpus", files);
  return openCorpus(
    name,
    (path) => path === "." ? Promise.resolve(folder) : folder.open(path),
    options,
  );
}

async function numbered(
  { read }: Corpus,
  first?: number,
  end?: number,
): Promise<[number, string][]> {
  const all: [number, string][] = [];
  for await (const { index, document } of read(first, end)) {
    all.push([index, "text" in document ? document.text : ""]);
  }
  return all;
}

Deno.test("openCorpus() gives the same documents in every format, from any number on", async () => {
  const want = TEXTS.map((text, i) => [i, text]);
  for (const name of Object.keys(FILES)) {
    const corpus = await open(FILES, name);
    deepEqual(await numbered(corpus), want, name);
    for (const [first, end] of [[0, 1], [99, 101], [350, 352], [699, 9999]]) {
      deepEqual(
        await numbered(corpus, first, end),
        want.slice(first, end),
        `${name} from ${first}`,
      );
    }
    deepEqual(await numbered(corpus, 700), []);
  }
});

Deno.test("openCorpus() gives every document of several files to one shard, in runs of 256", async () => {
  const files = {
    "a.jsonl.gz": gzipSync(lines(TEXTS.slice(0, 300))),
    "b.parquet": parquet(TEXTS.slice(300, 690)),
    "c.txt": bytesOf(TEXTS.slice(690).join("\n\n")),
  };
  const want = TEXTS.map((text, i) => [i, text]);
  for (const shuffleSeed of [undefined, 3]) {
    const whole = await numbered(await open(files, ".", { shuffleSeed }));
    deepEqual(whole.map(([index]) => index), [...TEXTS.keys()]);
    if (shuffleSeed === undefined) deepEqual(whole, want);
    for (const count of [1, 2, 3, 5]) {
      for (let index = 0; index < count; index++) {
        const shard = { index, count };
        const corpus = await open(files, ".", { shuffleSeed, shard });
        const own = whole.filter(([n]) =>
          Math.floor(n / 256) % count === index
        );
        deepEqual(await numbered(corpus), own, `${index} of ${count}`);
        deepEqual(
          await numbered(corpus, 200, 600),
          own.filter(([n]) => n >= 200 && n < 600),
        );
      }
    }
  }
});

Deno.test("Corpus.sample() looks into each file, and no further than its first document", async () => {
  const files = {
    "a.jsonl": bytesOf('{"text":"a"}\n{"body":"faulty"}\n'),
    "b.parquet": parquet(["b", "c"]),
    "c.jsonl": bytesOf('{"body":"faulty"}\n'),
  };
  const sampled = async (n: number, options?: CorpusOptions) => {
    const corpus = await open(files, ".", options);
    const all = await Array.fromAsync(corpus.sample(n));
    return all.map(({ document }) => "text" in document && document.text);
  };
  deepEqual(await sampled(2), ["a", "b"]);
  // Files that another task reads are looked into as well.
  deepEqual(await sampled(2, { shard: { index: 3, count: 9 } }), ["a", "b"]);
  await rejectsInOneLine(
    () => sampled(3),
    /^SyntaxError: Cannot read "corpus\/c\.jsonl" line 1: .*got body/,
  );
  const story = await open({}, "storybook:7");
  deepEqual((await Array.fromAsync(story.sample(5))).length, 1);
});

Deno.test("openCorpus() passes over documents without text where it is told to, and numbers them", async () => {
  const texts = ["a", "", " ", "d", ...Array(3000).fill("")];
  texts[2500] = "z";
  const files = {
    "a.jsonl": bytesOf('{"text":null}\n{"text":""}\n{"text":"b"}\n'),
    "a.txt": bytesOf("\n"),
    "b.parquet": parquet(texts),
    "c.jsonl.gz": gzipSync(new Uint8Array(0)),
  };
  const skipEmpty = true;
  deepEqual(await numbered(await open(files, ".", { skipEmpty })), [
    [2, "b"],
    [3, "a"],
    [6, "d"],
    [2503, "z"],
  ]);
  const shuffled = await open(files, ".", { skipEmpty, shuffleSeed: 4 });
  const whole = await numbered(shuffled);
  deepEqual(whole.map(([, text]) => text).sort(), ["a", "b", "d", "z"]);
  const [index] = whole[2]!;
  deepEqual(await numbered(shuffled, index), whole.slice(2));
  await rejectsInOneLine(
    async () => numbered(await open(files, ".")),
    /^SyntaxError: Cannot read "corpus\/a\.jsonl" line 1: expected text in "text": got empty text: correct or remove it, or give collect or train --skip-empty$/,
  );
});

Deno.test("openCorpus() shuffles by the seed: windows, row groups and files, found again from any number on", async () => {
  const texts = madeTexts(5000, 6).map((text) => text.split(" ", 5).join(" "));
  const files = {
    "a.parquet": parquet(texts.slice(0, 3000)),
    "b.jsonl": lines(texts.slice(3000)),
  };
  const corpus = await open(files, ".", { shuffleSeed: 11 });
  const whole = await numbered(corpus);
  deepEqual(whole.map(([, text]) => text).sort(), texts.toSorted());
  const moved = whole.filter(([i, text]) => texts[i] !== text).length;
  equal(moved > 4900, true, `${moved} moved`);
  for (const first of [1, 2047, 2048, 4500]) {
    deepEqual(
      await numbered(corpus, first, first + 40),
      whole.slice(first, first + 40),
    );
  }
  // Windows of 2,048 documents: the first of them is not of one place.
  const places = whole.slice(0, 2048).map(([, text]) => parseInt(text));
  equal(
    new Set(places.map((place) => Math.floor(place / 100))).size > 18,
    true,
  );
  const again = await numbered(await open(files, ".", { shuffleSeed: 11 }));
  deepEqual(again, whole);
  const other = await numbered(await open(files, ".", { shuffleSeed: 12 }));
  equal(other.some(([i, text]) => whole[i]![1] !== text), true);
  // The order is the same on every machine, and of every version.
  deepEqual(whole.slice(0, 5).map(([, text]) => parseInt(text)), [
    685,
    1754,
    2153,
    1660,
    1652,
  ]);
  const story = await open({}, "storybook:101:5000", { shuffleSeed: 1 });
  equal(new Set((await numbered(story)).map(([index]) => index)).size, 5000);
});

/** Opens the file and reads it to its end. */
async function readFile(name: string, bytes: Uint8Array): Promise<void> {
  await numbered(await open({ [name]: bytes }, name));
}

Deno.test("openCorpus() refuses cut-off and damaged files with file and reason", async () => {
  const text = lines(TEXTS.slice(0, 60));
  const whole = {
    "a.jsonl.gz": new Uint8Array(gzipSync(text)),
    "a.jsonl.zst": zstd(text),
  };
  for (const [name, bytes] of Object.entries(whole)) {
    const refusal = new RegExp(
      `^SyntaxError: Cannot read "corpus/${name}": expected whole (gzip|zstd) data: .*: the file is damaged or cut off: fetch it again$`,
    );
    await readFile(name, bytes);
    const cuts = [0, 1, 5, 17, 100, bytes.length >> 1, bytes.length - 9];
    for (const end of [...cuts, bytes.length - 4, bytes.length - 1]) {
      const cut = bytes.slice(0, end);
      await rejectsInOneLine(() => readFile(name, cut), refusal);
    }
    for (let at = 40; at < bytes.length; at += 97) {
      const flipped = bytes.slice();
      flipped[at]! ^= 0x10;
      // A flip may show as a line that is no JSON before the checksum does.
      await rejectsInOneLine(
        () => readFile(name, flipped),
        new RegExp(`^\\w+: Cannot read "corpus/${name}"`),
      );
    }
    await rejectsInOneLine(() => readFile(name, text), refusal);
    const tail = joined(bytes, bytesOf("garbage at the end"));
    await rejectsInOneLine(() => readFile(name, tail), refusal);
  }
  await rejectsInOneLine(
    () => readFile("a.parquet", FILES["a.parquet"]!.slice(0, -20)),
    /^SyntaxError: Cannot read "corpus\/a\.parquet": .*: fetch it again$/,
  );
});

Deno.test("openCorpus() refuses zstd frames that would take the memory", async () => {
  const frame = zstd(bytesOf('{"text":"a"}'));
  const head = (bytes: readonly number[]): Uint8Array =>
    Uint8Array.from([...frame.subarray(0, 4), ...bytes, 0, 0, 0, 0, 0, 0]);
  // Windows of 2^41 bytes, and of a frame of 2^64; a dictionary.
  await rejectsInOneLine(
    () => readFile("a.jsonl.zst", head([0, 31 << 3])),
    /^RangeError: .*a\.jsonl\.zst": expected frames that look back at most 134217728 bytes: got 2199023255552/,
  );
  await rejectsInOneLine(
    () => readFile("a.jsonl.zst", head([0xe0, ...Array(8).fill(255)])),
    /^RangeError: .*look back at most/,
  );
  await rejectsInOneLine(
    () => readFile("a.jsonl.zst", head([1, 0, 7])),
    /^RangeError: .*expected no dictionary/,
  );
});

Deno.test("openCorpus() refuses a line without an end, however small it is packed", async () => {
  const line = new Uint8Array(66 * 2 ** 20).fill(97);
  await rejectsInOneLine(
    () => readFile("a.jsonl.zst", zstd(line)),
    /^RangeError: Cannot read "corpus\/a\.jsonl\.zst" line 1: expected at most 67108864 bytes/,
  );
});

Deno.test("openCorpus() refuses a text file that is one paragraph without an end", async () => {
  const line = `${"a".repeat(2 ** 20 - 1)}\n`;
  await rejectsInOneLine(
    () => readFile("a.txt.zst", zstd(bytesOf(`b\n\n${line.repeat(66)}`))),
    /^RangeError: Cannot read "corpus\/a\.txt\.zst" line 3: expected a paragraph of at most 67108864 characters: got more: separate documents by blank lines$/,
  );
});

Deno.test("crc32() and Xxh64 give the values of their specifications, in whatever pieces", () => {
  equal(crc32(bytesOf("123456789")), 0xcbf43926);
  const bytes = Uint8Array.from({ length: 300 }, (_, i) => (i * i) >> 3);
  equal(
    crc32(bytes.subarray(123), crc32(bytes.subarray(0, 123))),
    crc32(bytes),
  );
  const hash = (...parts: Uint8Array[]): number => {
    const sum = new Xxh64();
    for (const part of parts) sum.update(part);
    return sum.low32();
  };
  equal(hash(), 0x51d8e999);
  equal(hash(bytesOf("abc")), 0xad770999);
  for (const at of [1, 31, 32, 33, 200]) {
    equal(hash(bytes.subarray(0, at), bytes.subarray(at)), hash(bytes));
  }
});
