import assert from "node:assert/strict";
import {
  blobSource,
  memoryFolder,
  memorySource,
  readJson,
  readText,
  type Source,
  urlFolder,
  urlSource,
} from "../../core/source.ts";

const BYTES = Uint8Array.from({ length: 100 }, (_, i) => i);
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Runs a test against an HTTP server on a free port. */
async function withServer(
  answer: (request: Request) => Response,
  test: (url: string) => Promise<void>,
): Promise<void> {
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    answer,
  );
  await test(`http://127.0.0.1:${server.addr.port}`);
}

/** Answers one range of `bytes`, as servers of files do. */
function ranged(request: Request, bytes: Uint8Array<ArrayBuffer>): Response {
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(
    request.headers.get("range")!,
  )!;
  if (Number(first) >= bytes.length) {
    return new Response(null, {
      status: 416,
      headers: { "content-range": `bytes */${bytes.length}` },
    });
  }
  const end = Math.min(Number(last) + 1, bytes.length);
  return new Response(bytes.slice(Number(first), end), {
    status: 206,
    headers: { "content-range": `bytes ${first}-${end - 1}/${bytes.length}` },
  });
}

async function checkReads(source: Source): Promise<void> {
  assert.equal(source.byteLength, 100);
  const bytes = await source.read(10, 14);
  assert.deepEqual([...bytes], [10, 11, 12, 13]);
  assert.equal(bytes.byteOffset, 0);
  assert.equal(bytes.buffer.byteLength, 4);
  assert.equal((await source.read(0, 100)).length, 100);
  assert.equal((await source.read(100, 100)).length, 0);
  const bad: [number, number][] = [[-1, 2], [5, 4], [99, 101], [0.5, 2], [
    0,
    NaN,
  ]];
  for (const [start, end] of bad) {
    await assert.rejects(source.read(start, end), (error: Error) => {
      assert.ok(error instanceof RangeError);
      return error.message.includes(`"${source.name}"`);
    });
  }
}

Deno.test("memorySource() reads ranges as copies and refuses others", async () => {
  const source = memorySource("m", BYTES);
  await checkReads(source);
  (await source.read(0, 1))[0] = 99;
  assert.equal((await source.read(0, 1))[0], 0);
});

Deno.test("memorySource() reads a view that starts inside its buffer", async () => {
  const source = memorySource("m", BYTES.subarray(50));
  assert.deepEqual([...await source.read(0, 2)], [50, 51]);
});

Deno.test("blobSource() reads ranges and refuses others", async () => {
  await checkReads(blobSource("b", new Blob([BYTES])));
});

Deno.test("urlSource() reads ranges over HTTP and refuses others", async () => {
  await withServer(
    (request) => ranged(request, BYTES),
    async (url) => await checkReads(await urlSource(`${url}/x`)),
  );
});

Deno.test("urlSource() has length 0 when the file is empty", async () => {
  await withServer(
    (request) => ranged(request, new Uint8Array(0)),
    async (url) => assert.equal((await urlSource(url)).byteLength, 0),
  );
});

Deno.test("urlSource() refuses a server that ignores ranges or has no file", async () => {
  for (const status of [200, 404, 500]) {
    await withServer(
      () => new Response("whole", { status }),
      async (url) => {
        await assert.rejects(urlSource(url), {
          message:
            `Cannot read "${url}": expected status 206 with content-range bytes 0-0: got ${status} with ""`,
        });
      },
    );
  }
});

Deno.test("urlSource() refuses another range, a changed file and a wrong body length", async () => {
  let length = 100;
  let body = 4;
  let shift = 0;
  const answer = (request: Request): Response => {
    const { start, last } = /(?<start>\d+)-(?<last>\d+)/.exec(
      request.headers.get("range")!,
    )!.groups!;
    const range = `${Number(start) + shift}-${Number(last) + shift}`;
    return new Response(new Uint8Array(last === "0" ? 1 : body), {
      status: 206,
      headers: { "content-range": `bytes ${range}/${length}` },
    });
  };
  await withServer(answer, async (url) => {
    const source = await urlSource(url);
    assert.equal((await source.read(4, 8)).length, 4);
    for (body of [3, 5]) {
      await assert.rejects(source.read(4, 8), { name: "RangeError" });
    }
    [body, length] = [4, 101];
    await assert.rejects(source.read(4, 8), /the file changed meanwhile/);
    [shift, length] = [1, 100];
    await assert.rejects(source.read(4, 8), /content-range bytes 4-7: got 206/);
  });
});

Deno.test("urlSource() names the address when no server answers", async () => {
  const url = "http://127.0.0.1:1/model.safetensors";
  await assert.rejects(urlSource(url), (error: Error) => {
    assert.match(error.message, /^Cannot read "http:\/\/127.0.0.1:1\/model.+$/);
    return true;
  });
});

Deno.test("urlFolder() finds and opens files, and stays inside its address", async () => {
  const answer = (request: Request): Response => {
    const { pathname } = new URL(request.url);
    if (pathname !== "/m/a%20b.txt") return new Response(null, { status: 404 });
    return request.method === "HEAD" ? new Response() : ranged(request, BYTES);
  };
  await withServer(answer, async (url) => {
    const folder = urlFolder(`${url}/m/`);
    assert.equal(folder.name, `${url}/m`);
    assert.equal(await folder.has("a b.txt"), true);
    assert.equal(await folder.has("other"), false);
    await checkReads(await folder.open("a b.txt"));
    await assert.rejects(folder.open("other"), /got 404/);
    await assert.rejects(folder.open("../m/a b.txt"), { name: "RangeError" });
    await assert.rejects(folder.list(), /^Error: Cannot list "/);
  });
});

Deno.test("memoryFolder() lists, opens and reports missing files", async () => {
  const folder = memoryFolder("f", { b: BYTES, a: BYTES });
  assert.deepEqual(await folder.list(), ["a", "b"]);
  assert.equal(await folder.has("a"), true);
  assert.equal(await folder.has("toString"), false);
  await checkReads(await folder.open("b"));
  await assert.rejects(folder.open("c"), {
    message:
      'Cannot open "c": no such file in "f": put it there, or name another folder',
  });
});

Deno.test("readText() reads UTF-8 and drops a byte order mark", async () => {
  assert.equal(await readText(memorySource("t", utf8("日本 🙂"))), "日本 🙂");
  assert.equal(await readText(memorySource("t", utf8("\ufeffx"))), "x");
});

Deno.test("readText() names the file when it is not UTF-8", async () => {
  const latin1 = memorySource("old.txt", Uint8Array.of(0x63, 0xe9));
  await assert.rejects(readText(latin1), {
    name: "SyntaxError",
    message:
      'Cannot read "old.txt" as text: expected UTF-8: got other bytes: convert the file to UTF-8',
  });
});

Deno.test("readText() refuses a longer file before it reads it", async () => {
  const huge: Source = {
    name: "huge.txt",
    byteLength: 2 ** 40,
    read: () => Promise.reject(new Error("was read")),
  };
  await assert.rejects(readText(huge), {
    name: "RangeError",
    message: /^Cannot read "huge.txt" as text: expected at most 268435456/,
  });
});

Deno.test("readJson() parses, and names the file in one line when it cannot", async () => {
  assert.deepEqual(await readJson(memorySource("j", utf8('{"a":[1]}'))), {
    a: [1],
  });
  for (const text of ["", "{\n\n", '{"a":\n1,,}']) {
    await assert.rejects(readJson(memorySource("x.json", utf8(text))), {
      name: "SyntaxError",
      message: /^Cannot read "x.json": expected JSON: .+$/,
    });
  }
});
