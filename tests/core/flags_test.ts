import assert from "node:assert/strict";
import {
  type ConfigOf,
  configPath,
  type FlagTable,
  mergeConfig,
  parseFlags,
} from "../../core/flags.ts";

const TABLE = {
  model: { type: "string", required: true, help: "folder of the model" },
  lr: { default: 1e-3, min: 0, help: "learning rate", unit: "per step" },
  d_sae: { default: 1536, integer: true, min: 1, help: "number of features" },
  layer: { type: "number", integer: true, help: "block to read" },
  mode: { default: "clamp", choices: ["clamp", "add"], help: "what to do" },
  greedy: { default: false, help: "take the likeliest token" },
  color: { default: true, help: "color the text" },
  steer: { type: "strings", help: "feature=strength" },
  prompt: { type: "string", help: "text to continue" },
} as const satisfies FlagTable;

type Config = ConfigOf<typeof TABLE>;

const OPTIONS = { name: "steer", description: "Steers a model" } as const;

/** Fails to compile unless the table gives exactly these types. */
const DEFAULTS: {
  readonly model: string;
  readonly lr: number;
  readonly d_sae: number;
  readonly layer: number | undefined;
  readonly mode: "clamp" | "add";
  readonly greedy: boolean;
  readonly color: boolean;
  readonly steer: readonly string[];
  readonly prompt: string | undefined;
} = {
  model: "m",
  lr: 1e-3,
  d_sae: 1536,
  layer: undefined,
  mode: "clamp",
  greedy: false,
  color: true,
  steer: [],
  prompt: undefined,
} satisfies Config;

function parse(
  argv: string[],
  config?: Partial<Config>,
  positionals: (keyof Config)[] = [],
): Config {
  const parsed = parseFlags(TABLE, argv, {
    ...OPTIONS,
    positionals,
    ...(config && { config }),
  });
  assert.ok(!("help" in parsed));
  return parsed;
}

Deno.test("parseFlags() takes defaults, then the config file, then flags", () => {
  assert.deepEqual(parse(["--model", "m"]), DEFAULTS);
  const config = { model: "c", lr: 2, steer: ["1=2"], greedy: true };
  assert.deepEqual(parse([], config), { ...DEFAULTS, ...config });
  assert.deepEqual(
    parse(["--lr=3", "--no-greedy", "--steer", "5=6"], config),
    { ...DEFAULTS, ...config, lr: 3, greedy: false, steer: ["5=6"] },
  );
});

Deno.test("parseFlags() understands every way to write a flag", () => {
  const argv = [
    ["--model", "m", "--d-sae", "64", "--layer", "3", "--greedy"],
    ["--model=m", "--d_sae=64", "--layer=+3", "--greedy"],
    ["--greedy", "--d-sae=1", "--d_sae=64", "--layer", "3e0", "--model=m"],
  ];
  for (const args of argv) {
    const want = { ...DEFAULTS, d_sae: 64, layer: 3, greedy: true };
    assert.deepEqual(parse(args), want);
  }
  const odd = parse([
    "--model=--x",
    "--layer",
    "-5",
    "--lr",
    ".5e-3",
    "--no-color",
    "--prompt",
    "-",
    "--steer=a=b=c",
    "--steer",
    "2",
  ]);
  assert.deepEqual(odd, {
    ...DEFAULTS,
    model: "--x",
    layer: -5,
    lr: 5e-4,
    color: false,
    prompt: "-",
    steer: ["a=b=c", "2"],
  });
});

Deno.test("parseFlags() places arguments without a flag", () => {
  const positionals = ["prompt", "steer"] as const;
  const place = (argv: string[]): Config =>
    parse(["--model=m", ...argv], undefined, [...positionals]);
  assert.deepEqual(place(["hi there", "1=2", "3=4"]), {
    ...DEFAULTS,
    prompt: "hi there",
    steer: ["1=2", "3=4"],
  });
  assert.equal(place(["--", "--prompt_x"]).prompt, "--prompt_x");
  assert.throws(() => place(["a", "--prompt", "b"]), {
    message:
      'Cannot run steer: expected --prompt once: got "a" without a flag as well',
  });
  assert.throws(() => parse(["x"], undefined, []), {
    message:
      'Cannot run steer: expected flags only: got "x": put text with spaces in quotes',
  });
  assert.throws(() => parse(["x", "y"], undefined, ["prompt"]), {
    message: /expected at most 1 without a flag: got "y"/,
  });
});

Deno.test("parseFlags() refuses in one line what it does not understand", () => {
  const refused: [string[], string, string][] = [
    [["--lrr", "1"], "RangeError", "no flag --lrr: did you mean --lr?"],
    [["--d-sea=1"], "RangeError", "no flag --d-sea: did you mean --d-sae?"],
    [
      ["--wholly-unknown"],
      "RangeError",
      "no flag --wholly-unknown: see --help",
    ],
    [["--no-lr"], "RangeError", "no flag --no-lr: see --help"],
    [["--constructor"], "RangeError", "no flag --constructor: see --help"],
    [["-x"], "RangeError", "no flag -x: see --help"],
    [["--config", "c"], "RangeError", "no flag --config: see --help"],
    [["--lr"], "TypeError", "expected a value after --lr: got nothing"],
    [
      ["--lr", "--greedy"],
      "TypeError",
      "expected a value after --lr: got the flag --greedy: write --lr=--greedy if it is the value",
    ],
    [
      ["--greedy=yes"],
      "TypeError",
      'expected --greedy without a value: got "yes"',
    ],
    [["--lr", "fast"], "TypeError", "expected --lr to be a number: got fast"],
    [["--lr="], "TypeError", 'expected --lr to be a number: got ""'],
    [["--lr", "NaN"], "TypeError", "expected --lr to be a number: got NaN"],
    [["--lr", "1e999"], "TypeError", "expected --lr to be a number: got 1e999"],
    [["--lr", "0x10"], "TypeError", "expected --lr to be a number: got 0x10"],
    [["--lr", "-1"], "RangeError", "expected --lr to be 0 or more: got -1"],
    [
      ["--d-sae", "1.5"],
      "RangeError",
      "expected --d-sae to be a whole number, 1 or more: got 1.5",
    ],
    [
      ["--layer", "1.5"],
      "RangeError",
      "expected --layer to be a whole number: got 1.5",
    ],
    [
      ["--mode", "ad"],
      "RangeError",
      'expected --mode to be clamp or add: got "ad"',
    ],
    [
      ["--lr", "2"],
      "TypeError",
      "expected --model STRING: got nothing: folder of the model",
    ],
  ];
  for (const [argv, name, problem] of refused) {
    assert.throws(() => parse(argv), {
      name,
      message: `Cannot run steer: ${problem}`,
    });
  }
});

Deno.test("parseFlags() gives the help, even beside a mistake", () => {
  for (const argv of [["--help"], ["-h"], ["--wrong", "x", "--help"]]) {
    const parsed = parseFlags(TABLE, argv, {
      ...OPTIONS,
      positionals: ["prompt"],
      config: {},
    });
    assert.ok("help" in parsed);
    assert.equal(
      parsed.help,
      `Steers a model

Usage: ./ocs steer [PROMPT] [flags]

  --model STRING   folder of the model (required)
  --lr NUMBER      learning rate (per step; 0 or more; default 0.001)
  --d-sae NUMBER   number of features (a whole number, 1 or more; default 1536)
  --layer NUMBER   block to read (a whole number)
  --mode STRING    what to do (clamp or add; default clamp)
  --greedy         take the likeliest token
  --color          color the text (on; --no-color turns it off)
  --steer STRING   feature=strength (can be repeated)
  --prompt STRING  text to continue
  --config FILE    JSON file of flags; flags given here win
  --help           this text`,
    );
  }
});

Deno.test("configPath() finds the file of --config", () => {
  assert.equal(
    configPath(TABLE, ["--lr", "1", "--config", "c.json"]),
    "c.json",
  );
  assert.equal(configPath(TABLE, ["--config=a", "--config=b"]), "b");
  assert.equal(
    configPath(TABLE, ["--prompt=--config", "--", "--config"]),
    undefined,
  );
  assert.throws(() => configPath(TABLE, ["--config"]), {
    message: /expected a value after --config: got nothing$/,
  });
});

Deno.test("mergeConfig() takes what a run wrote and refuses the rest, naming file and key", () => {
  const { prompt: _, layer: __, ...written } = parse(["--model", "m"]);
  const json = JSON.parse(JSON.stringify(parse(["--model", "m"])));
  assert.deepEqual(mergeConfig(TABLE, json, "c.json"), written);
  const refused: [unknown, string, string][] = [
    [[], "TypeError", "expected an object of flags: got another JSON value"],
    [{ d_sea: 1 }, "RangeError", 'no flag "d_sea": did you mean "d_sae"?'],
    [{ toString: 1 }, "RangeError", 'no flag "toString"'],
    [{ lr: "1" }, "TypeError", 'expected lr to be a number: got "1"'],
    [{ lr: null }, "TypeError", "expected lr to be a number: got null"],
    [{ lr: -1 }, "RangeError", "expected lr to be 0 or more: got -1"],
    [{ mode: "x" }, "RangeError", 'expected mode to be clamp or add: got "x"'],
    [{ greedy: 1 }, "TypeError", "expected greedy to be true or false: got 1"],
    [
      { steer: ["a", 1] },
      "TypeError",
      'expected steer to be a list of texts: got ["a",1]',
    ],
    [{ model: 1 }, "TypeError", "expected model to be a text: got 1"],
  ];
  for (const [config, name, problem] of refused) {
    assert.throws(() => mergeConfig(TABLE, config, "c.json"), {
      name,
      message: `Cannot read "c.json": ${problem}`,
    });
  }
});
