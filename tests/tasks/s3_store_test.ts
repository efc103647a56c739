import assert from "node:assert/strict";
import { S3_TIMING, S3Client } from "../../core/s3_client.ts";
import { openS3File, s3Folder } from "../../core/s3_folder.ts";
import { readText } from "../../core/source.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { IDLE_MS, startServer, stoppedClock } from "./s3_fixture.ts";
import { BUCKET, S3Server } from "./s3_server.ts";

const BYTES = Uint8Array.from({ length: 4321 }, (_, i) => (i * i) % 251);

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return new Uint8Array(digest).toHex();
}

/** The bytes in pieces that are no parts. */
function* pieces(): Generator<Uint8Array> {
  for (let at = 0; at < BYTES.length; at += 700) {
    yield BYTES.subarray(at, at + 700);
  }
}

Deno.test("s3Store() writes, lists, finds, reads and removes files, and signs every request", async () => {
  const { server, store } = startServer();
  await using _ = server;
  server.pageSize = 2;
  server.put("run/a b", "a file with the folder's name");
  server.put("run/a b/", "");
  server.put("run/a b/deep/file", "not in the folder itself");
  for (const name of ["x+y&z.txt", "ü.txt", "a.txt", "it's (1)*.txt"]) {
    assert.deepEqual(await store.write(name, `in ${name}`), {
      bytes: new TextEncoder().encode(`in ${name}`).length,
      sha256: await sha256(new TextEncoder().encode(`in ${name}`)),
    });
    assert.equal(await readText(await store.open(name)), `in ${name}`);
  }
  assert.equal(store.name, "s3://residuals/run/a b");
  const names = ["a.txt", "it's (1)*.txt", "x+y&z.txt", "ü.txt"];
  assert.deepEqual(await store.list(), names);
  server.put("run/a b/.git/hidden", "not told");
  assert.deepEqual(
    await store.list({ deep: true }),
    [...names, "deep/file"].sort(),
  );
  assert.equal(server.text("run/a b/ü.txt"), "in ü.txt");
  assert.equal(await store.has("a.txt"), true);
  await store.remove("a.txt");
  await store.remove("a.txt");
  assert.equal(await store.has("a.txt"), false);
  await rejectsInOneLine(
    () => store.open("a.txt"),
    /^Error: Cannot open "a\.txt": no such file in "s3:\/\/residuals\/run\/a b"/,
  );
  await rejectsInOneLine(() => store.write("../x", ""), /^RangeError: /);
});

Deno.test("s3Store() writes nothing, one part and many as one object with its hash", async () => {
  const { server, store } = startServer();
  await using _ = server;
  for (const length of [0, 999, 1000, 1001, 3000, 4321]) {
    const bytes = BYTES.slice(0, length);
    assert.deepEqual(await store.write("x", bytes), {
      bytes: length,
      sha256: await sha256(bytes),
    });
    assert.deepEqual(server.objects.get("run/a b/x")!.bytes, bytes);
    const source = await store.open("x");
    assert.deepEqual(await source.read(0, length), bytes);
  }
  assert.equal((await store.write("x", pieces())).sha256, await sha256(BYTES));
  assert.deepEqual(server.objects.get("run/a b/x")!.bytes, BYTES);
  assert.equal(server.uploads.size, 0);
});

Deno.test("s3Store() makes requests again when the server is busy, fails, or loses an answer", async () => {
  const { server, store, clock } = startServer();
  await using _ = server;
  const headers = { "retry-after": "7" };
  server.fail(() => true, { status: 503, code: "SlowDown", headers });
  server.fail(({ query }) => query.has("uploads"), {
    status: 500,
    code: "InternalError",
  });
  server.fail(({ query }) => query.get("partNumber") === "2", "lose");
  server.fail(
    ({ method, query }) => method === "POST" && query.has("uploadId"),
    "lose",
  );
  await store.write("x", pieces());
  assert.deepEqual(server.objects.get("run/a b/x")!.bytes, BYTES);
  assert.equal(clock.waits.length, 4);
  assert.equal(clock.waits[0], 7000);
  server.fail(({ method }) => method === "HEAD", { status: 429, code: "" });
  server.fail(({ method }) => method === "GET", { cutAt: 1234 });
  server.fail(({ method }) => method === "GET", { status: 500, code: "Oops" });
  server.fail(({ method }) => method === "GET", { cutAt: 1000 });
  const source = await store.open("x");
  assert.deepEqual(await source.read(7, 4000), BYTES.slice(7, 4000));
});

Deno.test("s3Store() goes on where an answer was cut off", async () => {
  const { server, store } = startServer();
  await using _ = server;
  server.put("run/a b/x", BYTES);
  const source = await store.open("x");
  const ranges: string[] = [];
  server.fail(
    ({ headers }) => {
      ranges.push(headers.get("range") ?? "none");
      return true;
    },
    { cutAt: 1000 },
    2,
  );
  assert.deepEqual(await source.read(100, 4100), BYTES.slice(100, 4100));
  assert.equal(ranges[0], "bytes=100-4099");
  assert.equal(server.seen.filter((line) => line.startsWith("GET")).length, 3);
  // How much of a cut answer comes through is up to the network.
  assert.match(ranges.at(-1)!, /^bytes=(100|1100|2100)-4099$/);
});

Deno.test("s3Store() gives up a request when nothing comes, and makes it again", async () => {
  const { server, store, clock } = startServer();
  await using _ = server;
  server.put("run/a b/x", BYTES);
  const source = await store.open("x");
  server.onHang = () => clock.run(IDLE_MS);
  server.fail(() => true, "hang", 2);
  assert.deepEqual(await source.read(0, 10), BYTES.slice(0, 10));
  server.fail(() => true, "hang", 4);
  await rejectsInOneLine(
    () => source.read(0, 10),
    /^Error: Cannot read "s3:\/\/residuals\/run\/a b\/x": nothing came for 61 s: try again later$/,
  );
});

Deno.test("s3Store() refuses a file that was changed or removed while it is read", async () => {
  const { server, store } = startServer();
  await using _ = server;
  server.put("run/a b/x", BYTES);
  const source = await store.open("x");
  server.put("run/a b/x", BYTES.toReversed());
  const changed =
    /^RangeError: Cannot read "s3:.*\/x": .*: it was changed or removed meanwhile/;
  await rejectsInOneLine(() => source.read(0, 10), changed);
  await store.remove("x");
  await rejectsInOneLine(() => source.read(0, 10), changed);
});

Deno.test("s3Store() says in one line why it was refused, and tells no signature", async () => {
  const { server, store, client } = startServer();
  {
    await using _ = server;
    server.fail(() => true, { status: 403, code: "AccessDenied" });
    await rejectsInOneLine(
      () => store.list(),
      /^Error: Cannot list "s3:\/\/residuals": the server answered 403 \(AccessDenied: As the test ordered\.\): check AWS_ACCESS_KEY_ID/,
    );
    server.fail(() => true, { status: 503, code: "SlowDown" }, 4);
    await rejectsInOneLine(
      () => store.write("x", "x"),
      /^Error: Cannot write "s3:\/\/residuals\/run\/a b\/x": the server answered 503 \(SlowDown: .*\): try again later$/,
    );
    const headers = { "x-amz-bucket-region": "us-west-9" };
    server.fail(() => true, {
      status: 301,
      code: "PermanentRedirect",
      headers,
    });
    await rejectsInOneLine(
      () => store.list(),
      /: the bucket is in another region: set AWS_REGION to "us-west-9"$/,
    );
    const wrong = { ...server.address(""), secretAccessKey: "wrong" };
    await rejectsInOneLine(
      () => s3Folder(new S3Client(wrong), wrong).list(),
      /403 \(SignatureDoesNotMatch/,
    );
    const missing = { ...server.address(""), bucket: "none" };
    await rejectsInOneLine(
      () => s3Folder(new S3Client(missing), missing).list(),
      /: there is no bucket "none" at http:.*: check its name and AWS_ENDPOINT_URL$/,
    );
  }
  // It is not running any more.
  await assert.rejects(
    client.send({
      verb: "read",
      method: "GET",
      key: "x",
    }, () => Promise.resolve()),
    (error: Error) => {
      assert.match(
        error.message,
        /^Cannot read "s3:.*: check AWS_ENDPOINT_URL/,
      );
      assert.doesNotMatch(error.message, /Signature|AKID|\n/);
      return true;
    },
  );
});

Deno.test("s3Store() signs with the token of a session", async () => {
  await using server = new S3Server();
  server.put("x", "text");
  server.sessionToken = "a+b/c==";
  const address = { ...server.address(""), sessionToken: "a+b/c==" };
  const source = await openS3File(new S3Client(address, stoppedClock()), "x");
  assert.equal(await readText(source!), "text");
});

Deno.test("s3Store() leaves nothing of an upload that fails, and keeps what was there", async () => {
  const { server, store } = startServer();
  await using _ = server;
  await store.write("x", "old");
  const unchanged = (): void => {
    assert.equal(server.text("run/a b/x"), "old");
    assert.equal(server.uploads.size, 0);
  };
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield await Promise.resolve(BYTES);
    throw new Error("no more");
  }
  await assert.rejects(store.write("x", failing()), { message: "no more" });
  unchanged();
  const third = { status: 400, code: "BadDigest" };
  server.fail(({ query }) => query.get("partNumber") === "3", third);
  await rejectsInOneLine(
    () => store.write("x", pieces()),
    /^Error: Cannot write "s3:.*\/x": the server answered 400 \(BadDigest: /,
  );
  unchanged();
  const isEnd = (
    { method, query }: { method: string; query: URLSearchParams },
  ) => method === "POST" && query.has("uploadId");
  server.fail(isEnd, { status: 400, code: "InvalidPart" });
  await rejectsInOneLine(() => store.write("x", pieces()), /InvalidPart/);
  unchanged();
  await store.write("x", pieces());
  assert.deepEqual(server.objects.get("run/a b/x")!.bytes, BYTES);
});

Deno.test("s3Store() removes the parts that an upload of the same file has left when it was killed", async () => {
  const { server, store } = startServer();
  await using _ = server;
  const left = (key: string): void => {
    server.uploads.set(`left-${key}`, { key, parts: new Map() });
  };
  left("run/a b/x");
  left("run/a b/xy");
  await store.write("x", pieces());
  assert.deepEqual([...server.uploads.keys()], ["left-run/a b/xy"]);
});

Deno.test("s3Folder() refuses a listing that is none, and one without an end", async () => {
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    (request) =>
      new Response(
        request.url.includes("/none")
          ? "<html>hello</html>"
          : "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
      ),
  );
  const endpoint = `http://127.0.0.1:${server.addr.port}`;
  for (const bucket of ["none", BUCKET]) {
    const address = {
      ...{ bucket, prefix: "x", endpoint, region: "a" },
      ...{ accessKeyId: "a", secretAccessKey: "b" },
    };
    await rejectsInOneLine(
      () => s3Folder(new S3Client(address), address).list(),
      /^SyntaxError: Cannot list "s3:\/\/.*": expected a listing of S3: got another answer/,
    );
  }
});

Deno.test("S3_TIMING calls back after a while, unless it is stopped", async () => {
  const called: string[] = [];
  const stop = S3_TIMING.after(0, () => called.push("stopped"));
  stop();
  await new Promise<void>((resolve) => {
    S3_TIMING.after(1, () => {
      called.push("called");
      resolve();
    });
  });
  assert.deepEqual(called, ["called"]);
});
