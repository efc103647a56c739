import assert from "node:assert/strict";
import {
  defaultHookPoint,
  hookPlace,
  parseHookPoint,
} from "../../core/hook_point.ts";

Deno.test("parseHookPoint() accepts both forms", () => {
  assert.deepEqual(hookPlace(parseHookPoint("resid_post[15]")), {
    site: "resid_post",
    layer: 15,
  });
  assert.deepEqual(hookPlace(parseHookPoint("final_norm@0", 1)), {
    site: "final_norm",
    layer: 0,
  });
});

Deno.test("parseHookPoint() refuses other text", () => {
  const others = [
    "",
    "resid_post",
    "resid_post[]",
    "resid_post[-1]",
    "resid_post[01]",
    "resid_post[1.5]",
    "resid_post[1] ",
    "resid_post[99999999999]",
    "resid_post@1",
    "final_norm",
    "final_norm[1]",
    "blocks.1.hook_resid_post",
  ];
  for (const text of others) {
    assert.throws(
      () => parseHookPoint(text),
      (error: Error) =>
        error instanceof SyntaxError &&
        error.message.includes(JSON.stringify(text)) &&
        !error.message.includes("\n"),
    );
  }
});

Deno.test("parseHookPoint() refuses a layer when the model lacks it", () => {
  assert.equal(parseHookPoint("resid_post[7]", 8), "resid_post[7]");
  assert.throws(
    () => parseHookPoint("resid_post[8]", 8),
    /^RangeError: .*from 0 to 7.*got 8$/,
  );
});

Deno.test("defaultHookPoint() is the middle of the model", () => {
  assert.equal(defaultHookPoint(32), "resid_post[15]");
  assert.equal(defaultHookPoint(8), "resid_post[3]");
  assert.equal(defaultHookPoint(3), "resid_post[0]");
  assert.equal(defaultHookPoint(1), "resid_post[0]");
});
