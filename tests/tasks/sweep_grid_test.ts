import { deepEqual, equal, throws } from "node:assert/strict";
import { gridPoints, parseGrid } from "../../tasks/sweep_grid.ts";

const TABLE = {
  lambda: { default: 1, min: 0, help: "" },
  d_sae: { default: 8, integer: true, min: 1, help: "" },
  architecture: { default: "relu", choices: ["relu", "topk"], help: "" },
  skip_bad_rows: { default: false, help: "" },
  residuals: { type: "string", help: "" },
} as const;

Deno.test("gridPoints() has every combination, the last axis first, each with a name of its own", () => {
  const axes = parseGrid(["lambda=0.5,1e-2", "--d-sae=8,16"], TABLE);
  deepEqual(gridPoints(axes), [
    { name: "lambda=0.5,d_sae=8", values: { lambda: 0.5, d_sae: 8 } },
    { name: "lambda=0.5,d_sae=16", values: { lambda: 0.5, d_sae: 16 } },
    { name: "lambda=0.01,d_sae=8", values: { lambda: 0.01, d_sae: 8 } },
    { name: "lambda=0.01,d_sae=16", values: { lambda: 0.01, d_sae: 16 } },
  ]);
});

Deno.test("parseGrid() reads texts and switches, whose names are safe as folders", () => {
  const axes = parseGrid([
    "architecture=relu,topk",
    "skip_bad_rows=true,false",
    "residuals=/data/a b,../c",
  ], TABLE);
  deepEqual(axes[1]!.values, [true, false]);
  const names = gridPoints(axes).map(({ name }) => name);
  equal(names.length, 8);
  equal(names[0], "architecture=relu,skip_bad_rows=true,residuals=data-a-b");
  equal(names[1], "architecture=relu,skip_bad_rows=true,residuals=..-c");
});

Deno.test("parseGrid() refuses what is no axis, by its text", () => {
  const refused: [text: string, message: RegExp][] = [
    [
      "lamda=1",
      /a flag of train that can vary: got --lamda: did you mean lambda\?$/,
    ],
    ["lambda", /expected a flag and its values, .*: got no values$/],
    ["lambda=", /got no values$/],
    ["lambda=1,x", /expected lambda to be a number: got x$/],
    ["lambda=1,-1", /expected lambda to be 0 or more: got -1$/],
    ["lambda=1,1.0", /expected every value once: got 1 twice$/],
    ["d_sae=1.5", /expected d_sae to be a whole number, 1 or more: got 1\.5$/],
    ["architecture=gelu", /expected architecture to be relu or topk/],
    ["skip_bad_rows=yes", /expected skip_bad_rows to be true or false/],
    ["toString=1", /a flag of train that can vary: got --toString/],
  ];
  for (const [text, message] of refused) {
    throws(() => parseGrid([text], TABLE), { message }, text);
  }
  throws(
    () => parseGrid(["lambda=1", "lambda=2"], TABLE),
    /expected every flag once: got lambda twice/,
  );
  throws(
    () => gridPoints(parseGrid(["residuals=a b,a-b"], TABLE)),
    /expected a name for each: got "residuals=a-b" twice/,
  );
});
