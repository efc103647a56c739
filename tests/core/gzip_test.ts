import assert from "node:assert/strict";
import { gunzip, gzip } from "../../core/gzip.ts";
import { memorySource } from "../../core/source.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const bytes = (n: number) => Uint8Array.from({ length: n }, (_, i) => i % 251);

Deno.test("gunzip() gives what gzip() took, more than one chunk of it too", async () => {
  for (const n of [0, 1, 3_000_000]) {
    const source = memorySource("a.gz", await gzip(bytes(n)));
    const unpacked = await gunzip(source);
    assert.equal(unpacked.name, "a.gz");
    assert.deepEqual(await unpacked.read(0, n), bytes(n));
  }
});

Deno.test("gunzip() refuses bombs, other files and files that are cut off", async () => {
  const packed = await gzip(new Uint8Array(5_000_000));
  const unpack = (part: Uint8Array, most?: number) => () =>
    gunzip(memorySource("a.gz", part), most);
  await rejectsInOneLine(
    unpack(packed, 4_999_999),
    /^RangeError: Cannot unpack "a.gz": expected at most 4999999 bytes in it: got more/,
  );
  assert.equal((await unpack(packed, 5_000_000)()).byteLength, 5_000_000);
  const damaged = /^SyntaxError: Cannot unpack "a.gz": expected gzip/;
  await rejectsInOneLine(unpack(packed.slice(0, -9)), damaged);
  await rejectsInOneLine(unpack(new TextEncoder().encode("{}")), damaged);
  await rejectsInOneLine(unpack(new Uint8Array(0)), damaged);
  const flipped = packed.slice();
  flipped[flipped.length - 6]! ^= 1; // in the checksum
  await rejectsInOneLine(unpack(flipped), damaged);
});
