import assert from "node:assert/strict";

/** Asserts that an action throws or rejects with one line; the pattern is matched against `Name: message`. */
export async function rejectsInOneLine(
  action: () => unknown,
  pattern: RegExp,
): Promise<void> {
  await assert.rejects(async () => await action(), (error: Error) => {
    assert.match(`${error.name}: ${error.message}`, pattern);
    assert.ok(!error.message.includes("\n"), error.message);
    return true;
  });
}
