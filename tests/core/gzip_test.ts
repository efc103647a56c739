import assert from "node:assert/strict";
import { gunzip } from "../../core/gunzip.ts";
import { gzip } from "../../core/gzip.ts";
import { memorySource } from "../../core/source.ts";

Deno.test("gzip() gives what gunzip() takes, the same each time", async () => {
  for (const n of [0, 1, 3_000_000]) {
    const bytes = Uint8Array.from({ length: n }, (_, i) => i % 251);
    const packed = await gzip(bytes);
    assert.deepEqual(packed, await gzip(bytes));
    const source = memorySource("a.gz", packed);
    const parts = await Array.fromAsync(gunzip(source), (part) => part.slice());
    assert.deepEqual(await new Blob(parts).bytes(), bytes);
  }
});
