import { deepEqual, equal, match } from "node:assert/strict";
import { join } from "node:path";
import { runTask, scratchFolder } from "./run_task.ts";
import { BUCKET, S3Server } from "./s3_server.ts";

Deno.test("collect and data work in an object store as they do in a folder", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await using server = new S3Server();
  const { endpoint, accessKeyId, secretAccessKey, region } = server.address("");
  const env = {
    AWS_ENDPOINT_URL: endpoint,
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_REGION: region,
  };
  const run = async (...words: [string, ...string[]]): Promise<string> => {
    const { code, stdout, stderr } = await runTask(words, { cwd, env });
    equal(code, 0, stderr);
    return stdout;
  };
  const words = [
    "--documents=100",
    "--context=32",
    "--hook=resid_post[0]",
    "--shard-rows=2000",
    "--quiet",
  ];
  const remote = `s3://${BUCKET}/run`;
  const outs = [remote, "local"];
  await Promise.all(
    outs.map((out) => run("collect", ...words, `--out=${out}`)),
  );
  const names = Array.from(Deno.readDirSync(join(cwd, "local")), (e) => e.name);
  deepEqual(
    [...server.objects.keys()].sort(),
    names.map((name) => `run/${name}`).sort(),
  );
  for (const name of names) {
    deepEqual(
      server.objects.get(`run/${name}`)!.bytes,
      Deno.readFileSync(join(cwd, "local", name)),
    );
  }
  match(
    await run("data", "check", remote, "--quiet"),
    /^[\d,]+ vectors in 2 shards \([^)]+\) are as they should be: /,
  );
});
