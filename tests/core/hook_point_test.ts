import assert from "node:assert/strict";
import {
  defaultHookPoint,
  hookPlace,
  hookPointNamed,
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

Deno.test("hookPointNamed() knows the residual stream by the names of other tools, and nothing else", () => {
  const names: Record<string, string | undefined> = {
    "blocks.7.hook_resid_post": "resid_post[7]",
    "blocks.7.hook_resid_pre": "resid_post[6]",
    "blocks.0.hook_resid_pre": undefined,
    "blocks.7.hook_resid_mid": undefined,
    "blocks.7.hook_mlp_out": undefined,
    "layers.10": "resid_post[10]",
    "model.layers.10": "resid_post[10]",
    "transformer.h.3": "resid_post[3]",
    "layers.10.mlp": undefined,
    "some-layers.10": undefined,
    "resid_post_layer_4": "resid_post[4]",
    "": undefined,
  };
  for (const [name, hookPoint] of Object.entries(names)) {
    assert.equal(hookPointNamed(name), hookPoint, name);
  }
});
