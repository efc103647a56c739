import assert from "node:assert/strict";
import { join } from "node:path";
import { readDocuments } from "../../core/text.ts";
import {
  openPath,
  openStore,
  s3Address,
  userPath,
} from "../../tasks/storage.ts";
import { PrefetchedBatches } from "../../train/prefetched_batches.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { runTask, scratchFolder } from "./run_task.ts";
import { BUCKET, S3Server } from "./s3_server.ts";
import { CREDENTIALS } from "./s3_signature.ts";
import { collectSmall, SMALL_RECIPE } from "./small_sae.ts";

const VARIABLES = {
  AWS_ACCESS_KEY_ID: "id",
  AWS_SECRET_ACCESS_KEY: "secret",
} as const;

/** The address of what was typed, with these variables. */
function addressOf(
  typed: string,
  variables: Readonly<Record<string, string>> = VARIABLES,
): ReturnType<typeof s3Address> {
  return s3Address(typed, (name) => variables[name]);
}

Deno.test("s3Address() takes server, region and credentials from the usual variables", () => {
  assert.deepEqual(addressOf("s3://data/run/1/"), {
    bucket: "data",
    prefix: "run/1",
    endpoint: "https://s3.us-east-1.amazonaws.com",
    region: "us-east-1",
    accessKeyId: "id",
    secretAccessKey: "secret",
  });
  const all = {
    ...VARIABLES,
    AWS_SESSION_TOKEN: "token",
    AWS_REGION: "eu-1",
    AWS_DEFAULT_REGION: "eu-2",
    AWS_ENDPOINT_URL: "http://localhost:9000",
    AWS_ENDPOINT_URL_S3: "",
  };
  const { prefix, endpoint, region, sessionToken } = addressOf(
    "s3://data",
    all,
  );
  assert.deepEqual(
    [prefix, endpoint, region, sessionToken],
    ["", "http://localhost:9000", "eu-1", "token"],
  );
});

Deno.test("s3Address() refuses in one line what is no address, and missing credentials", async () => {
  const refused: [typed: string, message: RegExp][] = [
    ["s3://", /^TypeError: .*expected s3:\/\/BUCKET\/FOLDER/],
    ["s3:///x", /^TypeError: .*expected s3:\/\/BUCKET\/FOLDER/],
    ["s3://data/../x", /^RangeError: .*a file name inside the folder/],
    ["s3://data//x", /^RangeError: .*a file name inside the folder/],
  ];
  for (const [typed, message] of refused) {
    await rejectsInOneLine(() => addressOf(typed), message);
  }
  const { AWS_ACCESS_KEY_ID } = VARIABLES;
  await rejectsInOneLine(
    () => addressOf("s3://data/x", { AWS_ACCESS_KEY_ID }),
    /^Error: Cannot open "s3:\/\/data\/x": expected credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: got no AWS_SECRET_ACCESS_KEY: set both/,
  );
  const variables = { ...VARIABLES, AWS_ENDPOINT_URL: "localhost:9000" };
  await rejectsInOneLine(
    () => addressOf("s3://data/x", variables),
    /^TypeError: .*expected AWS_ENDPOINT_URL to be a URL.*got "localhost:9000"$/,
  );
});

Deno.test("userPath() refuses in one line what is in an object store", async () => {
  await rejectsInOneLine(
    () => userPath("s3://data/x"),
    /^TypeError: Cannot use "s3:\/\/data\/x" here: expected a path of this machine/,
  );
});

/** Runs a test with a server that the variables of this process lead to. */
async function withServer(
  test: (server: S3Server, env: Record<string, string>) => Promise<void>,
): Promise<void> {
  await using server = new S3Server();
  const env = {
    AWS_ACCESS_KEY_ID: CREDENTIALS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey,
    AWS_REGION: CREDENTIALS.region,
    AWS_ENDPOINT_URL: server.endpoint,
  };
  for (const [name, value] of Object.entries(env)) Deno.env.set(name, value);
  try {
    await test(server, env);
  } finally {
    for (const name of Object.keys(env)) Deno.env.delete(name);
  }
}

Deno.test("openPath() opens objects as the file or folder they are", async () => {
  await withServer(async (server) => {
    const store = await openStore(`s3://${BUCKET}/texts`);
    await store.write("a.txt", "a");
    const file = await openPath(`s3://${BUCKET}/texts/a.txt`);
    assert.ok("byteLength" in file);
    assert.deepEqual(await file.read(0, 1), Uint8Array.of(97));
    const texts = readDocuments(`s3://${BUCKET}/texts`, openPath);
    assert.deepEqual(await Array.fromAsync(texts), [
      { id: "s3://residuals/texts/a.txt:1", text: "a" },
    ]);
    const folder = await openPath(`s3://${BUCKET}/texts/`);
    assert.ok("list" in folder);
    assert.deepEqual(await folder.list(), ["a.txt"]);
    await rejectsInOneLine(
      () => openPath(`s3://${BUCKET}/none`),
      /^Error: Cannot open "s3:.*none": expected a file or a folder with files: got neither/,
    );
    assert.equal(server.objects.size, 1);
  });
});

Deno.test("train reads residuals of an object store, the same as those of a folder", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  await collectSmall(cwd, "residuals");
  await withServer(async (server, env) => {
    const path = join(cwd, "residuals");
    for (const { name } of Deno.readDirSync(path)) {
      server.put(`run/${name}`, Deno.readFileSync(join(path, name)));
    }
    const options = { batch: 64, bufferRows: 512, holdOut: 100, seed: 1 };
    const address = server.address("run");
    using here = await PrefetchedBatches.open(path, options);
    using there = await PrefetchedBatches.open(address, options);
    for (let i = 0; i < 12; i++) {
      assert.deepEqual(await there.next(), await here.next());
    }
    const typed = `--residuals=s3://${BUCKET}/run`;
    const words = ["train", ...SMALL_RECIPE, "--steps=2", "--out=sae"] as const;
    const run = await runTask([...words, typed], { cwd, env });
    assert.equal(run.code, 0, run.stderr);
    server.fail(() => true, { status: 403, code: "AccessDenied" });
    const refused = await runTask([...words, typed], { cwd, env });
    assert.match(
      refused.stderr,
      /^error: Cannot read "s3:\/\/residuals\/run\/manifest\.json": the server answered 403/m,
    );
    const keyless = await runTask([...words, typed], {
      cwd,
      env: { ...env, AWS_SECRET_ACCESS_KEY: "" },
    });
    assert.match(keyless.stderr, /^error: .*got no AWS_SECRET_ACCESS_KEY/m);
  });
});

Deno.test("every task that reads residuals or a text may read them of an object store", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  const env = { AWS_ACCESS_KEY_ID: "" };
  const text = `--text=s3://${BUCKET}/texts`;
  const residuals = `--residuals=s3://${BUCKET}/run`;
  const runs = [
    ["collect", text, "--out=out"],
    ["train", residuals, "--out=out"],
    ["train", text, "--out=out"],
    ["eval", residuals],
    ["eval", text],
    ["find", text, "dragon"],
    ["score", text],
    ["convert", "--check", residuals],
    ["export", "--to=sae-bench", text, "--out=out"],
    ["data", "check", `s3://${BUCKET}/run`],
  ] as const;
  await Promise.all(runs.map(async (words) => {
    const { code, stderr } = await runTask(words, { cwd, env });
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^error: Cannot open "s3:.*": expected credentials .*got no AWS_ACCESS_KEY_ID/m,
      words.join(" "),
    );
  }));
  assert.deepEqual([...Deno.readDirSync(cwd)], []);
});
