import assert from "node:assert/strict";

/** Asserts that an action rejects with one line; the pattern is matched against `Name: message`. */
export async function rejectsInOneLine(
  action: () => Promise<unknown>,
  pattern: RegExp,
): Promise<void> {
  await assert.rejects(action, (error: Error) => {
    assert.match(`${error.name}: ${error.message}`, pattern);
    assert.ok(!error.message.includes("\n"), error.message);
    return true;
  });
}
