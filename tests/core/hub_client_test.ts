/** A hub that lies, and one that asks for the token. */
import { deepEqual, equal, match, rejects } from "node:assert/strict";
import { HubClient } from "../../core/hub_client.ts";
import { COMMIT, LARGE_FILE, REPO, Scene } from "./hub_scene.ts";
import { answerFile, type Asked, noise, TOKEN } from "./hub_server.ts";

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
