import assert from "node:assert/strict";
import { s3Store } from "../../tasks/s3_store.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { RENEW_MS, startServer } from "./s3_fixture.ts";

Deno.test("s3Store() locks for one process, tells whose a lock is, and gives it back", async () => {
  const { server, store, client, clock } = startServer();
  await using _ = server;
  const other = s3Store(client, { prefix: "run/a b" });
  {
    await using _lock = await store.lock("all");
    await using _others = await other.lock("000-of-002");
    assert.match(
      server.text("run/a b/.all.lock")!,
      new RegExp(`^{"pid":${Deno.pid},"host":".+","id":`),
    );
    // Renewed while it is watched, as of a process that lives.
    const before = server.text("run/a b/.all.lock");
    clock.onSleep = async () => {
      clock.run(RENEW_MS);
      while (server.text("run/a b/.all.lock") === before) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    };
    await rejectsInOneLine(
      () => other.lock("all"),
      new RegExp(
        `^Error: Cannot write to "s3://residuals/run/a b": process ${Deno.pid} on .+ is writing there: wait`,
      ),
    );
    await store.write("x", "still mine");
  }
  assert.deepEqual(await store.list(), ["x"]);
});

Deno.test("s3Store() takes a lock that nobody renews, and its former owner writes no more", async () => {
  const { server, store, client, clock } = startServer();
  await using _ = server;
  const said: string[] = [];
  const other = s3Store(client, { prefix: "run/a b" }, {
    onWait: (owner) => said.push(owner),
  });
  const lost = await store.lock("all");
  {
    await using _lock = await other.lock("all");
    assert.deepEqual(said, [`process ${Deno.pid} on ${Deno.hostname()}`]);
    const watched = clock.waits.reduce((sum, ms) => sum + ms, 0);
    assert.equal(watched, 60_000);
    clock.run(RENEW_MS); // both renew theirs
    await lost[Symbol.asyncDispose]();
    await rejectsInOneLine(
      () => store.write("x", "x"),
      /^Error: Cannot write to "s3:.*": its lock was lost: another process has taken it: run the same command again$/,
    );
    await other.write("x", "the new owner's");
    assert.ok(server.objects.has("run/a b/.all.lock"));
  }
  assert.deepEqual(await other.list(), ["x"]);
});

Deno.test("s3Store() takes a lock when the answer to its request was lost", async () => {
  const { server, store } = startServer();
  await using _ = server;
  server.fail(({ method }) => method === "PUT", "lose");
  await using _lock = await store.lock("all");
});

Deno.test("s3Store() refuses to lock where the server takes a write that its condition forbids", async () => {
  const { server, store } = startServer();
  await using _ = server;
  const refused: [honored: string[], missing: string][] = [
    [[], "If-None-Match"],
    [["if-match"], "If-None-Match"],
    [["if-none-match"], "If-Match"],
  ];
  for (const [honored, missing] of refused) {
    server.conditions = honored;
    await rejectsInOneLine(
      () => store.lock("all"),
      new RegExp(
        `^Error: Cannot lock "s3:.*/\\.all\\.lock": expected a server that honors ${missing}: got one`,
      ),
    );
    assert.equal(server.objects.size, 0);
  }
});
