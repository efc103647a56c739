import { deepEqual, throws } from "node:assert/strict";
import {
  parsePythonConfig,
  type PythonValue,
} from "../../train/python_config.ts";

function read(text: string): Record<string, PythonValue> {
  return Object.fromEntries(parsePythonConfig(text, "some.py"));
}

Deno.test("parsePythonConfig() reads literals as Python does", () => {
  const values: [text: string, value: unknown][] = [
    ["4_096", 4096],
    ["1e-4", 1e-4],
    ["5.", 5],
    [".5e+1", 5],
    ["0x10", 16],
    ["0b11 + 0o17", 18],
    ["64 * 1024 - 1", 65_535],
    ["2 + 3 * 4", 14],
    ["(2 + 3) * 4", 20],
    ["10 - 4 - 3", 3],
    ["-2 ** 2", -4],
    ["2 ** 3 ** 2", 512],
    ["2 ** -1", 0.5],
    ["-7 // 2", -4],
    ["-7 % 3", 2],
    ["7 / 2", 3.5],
    ["True", true],
    ["False", false],
    ["None", null],
    [`"a" 'b'`, "ab"],
    [`"it's # no comment"`, "it's # no comment"],
    [String.raw`'a\'b\n\\'`, "a'b\n\\"],
    [`"""two\nlines"""`, "two\nlines"],
    ["[1, 'a', None,]", [1, "a", null]],
    ["(1)", 1],
    ["(1,)", [1]],
    ["()", []],
    ["[]", []],
    ["1 + \\\n  1", 2],
  ];
  for (const [text, value] of values) {
    deepEqual(read(`x = ${text}\n`), { x: value }, text);
  }
});

Deno.test("parsePythonConfig() reads a file of assignments with comments, dictionaries and earlier names", () => {
  const text = `"""Settings."""
# first
batch = 2 * 8  # vectors
config = {
    # data
    'batch': batch,
    "nested": {'a': [1,
        2]},   # closing
}; other = 'x'
`;
  deepEqual(read(text), {
    batch: 16,
    config: new Map<string, unknown>([
      ["batch", 16],
      ["nested", new Map([["a", [1, 2]]])],
    ]),
    other: "x",
  });
  deepEqual(read(text.replaceAll("\n", "\r\n")), read(text));
  deepEqual(read(""), {});
});

Deno.test("parsePythonConfig() refuses everything else by its line, and runs none of it", () => {
  const refused: [text: string, line: number, got: string][] = [
    ["import os", 1, '"import"'],
    ["x = 1\nx += 1", 2, '"x"'],
    ["x = open('a')", 1, '"open"'],
    ["x = 1\ny = x.real", 2, '"."'],
    ["x = f'{1}'", 1, '"f"'],
    ["if True:\n    x = 1", 1, '"if"'],
    ["x = 1\n\n  y = 2", 3, "an indented line"],
    ["x = [1,\n2", 2, "the end of the file"],
    ["x = {1: 2}", 1, '"1"'],
    ["x = {\n 'a': lambda: 1}", 2, '"lambda"'],
    ["x = 1 2", 1, '"2"'],
    ["x = 'a", 1, '"\'"'],
    ["x = 'a' * 3", 1, "another value"],
    ["x = 1 / 0", 1, "Infinity"],
    ["x = 9007199254740993", 1, "9007199254740992"],
    ["x = 1__0", 1, '"1__0"'],
    ["x = 012", 1, '"012"'],
    ["x = 1abc", 1, '"1a"'],
    ["x = y", 1, '"y"'],
    ["True = 1", 1, '"True"'],
    ["x =", 1, "the end of the file"],
    ["x = 1 if True else 2", 1, '"if"'],
    ["x = " + "[".repeat(5000), 1, "more"],
    ["x = " + "-".repeat(5000) + "1", 1, "more"],
    [`x = '\\q'`, 1, `"'\\q'"`],
    ["x = __import__('os')", 1, '"__import__"'],
    ["x = constructor", 1, '"constructor"'],
  ];
  for (const [text, line, got] of refused) {
    throws(() => read(text), (error) => {
      const { message } = error as Error;
      deepEqual(
        [
          error instanceof SyntaxError,
          /line (\d+)/.exec(message)?.[1],
          message.slice(message.lastIndexOf("got ") + 4),
        ],
        [true, String(line), got],
        text.slice(0, 80),
      );
      return true;
    });
  }
});
