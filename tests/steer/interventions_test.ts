import assert from "node:assert/strict";
import {
  formatIntervention,
  type Intervention,
  parseIntervention,
} from "../../steer/interventions.ts";
import { absolute } from "./steered_rows.ts";

Deno.test("parseIntervention() reads every form, and formatIntervention() writes it back", () => {
  const forms: [string, Intervention][] = [
    ["758=10", absolute(758, "clamp", 10)],
    ["758=-2.5", absolute(758, "clamp", -2.5)],
    ["0=.5e1:add", absolute(0, "add", 5)],
    ["758=5x", { ...absolute(758, "clamp", 5), unit: "maximum" }],
    ["758=5x:min", { ...absolute(758, "min", 5), unit: "maximum" }],
    ["758=2x:scale", absolute(758, "scale", 2)],
    ["758=ablate", absolute(758, "ablate", 0)],
    [" 758 = 10 ", absolute(758, "clamp", 10)],
    ["758@3=5x", { ...absolute(758, "clamp", 5), unit: "maximum", layer: 3 }],
    ["758@0=ablate", { ...absolute(758, "ablate", 0), layer: 0 }],
    ["7=-0", absolute(7, "clamp", -0)],
    ["7=1e-7", absolute(7, "clamp", 1e-7)],
    ["7=1e21", absolute(7, "clamp", 1e21)],
    ["758=2:after=20", { ...absolute(758, "clamp", 2), after: 20 }],
    ["758=2:after=0", { ...absolute(758, "clamp", 2), after: 0 }],
    ["758=ablate:after=10", { ...absolute(758, "ablate", 0), after: 10 }],
    ...[
      "758@3=5x:add:after=20:decay=50",
      "758@3=5x:decay=50:add:after=20",
      " 758 @3 = 5x : after = 20 : decay= 50 : add ",
    ].map((text): [string, Intervention] => [text, {
      ...absolute(758, "add", 5),
      unit: "maximum",
      layer: 3,
      after: 20,
      decay: 50,
    }]),
    [
      "1=1:scale:decay=4294967295",
      { ...absolute(1, "scale", 1), decay: 2 ** 32 - 1 },
    ],
  ];
  for (const [text, want] of forms) {
    assert.deepEqual(parseIntervention(text), want, text);
    assert.deepEqual(parseIntervention(formatIntervention(want)), want, text);
  }
  assert.equal(
    formatIntervention(parseIntervention("758=5.0x:add")),
    "758=5x:add",
  );
  assert.equal(
    formatIntervention(
      parseIntervention("758@3=5.0x:decay=50:after=20:scale"),
    ),
    "758@3=5:scale:after=20:decay=50",
  );
});

Deno.test("parseIntervention() takes the mode of its options when the text has none", () => {
  assert.deepEqual(
    parseIntervention("3=2", { mode: "add" }),
    absolute(3, "add", 2),
  );
  assert.deepEqual(
    parseIntervention("3=2:min", { mode: "add" }),
    absolute(3, "min", 2),
  );
  const options = { mode: "ablate" } as const;
  for (const text of ["3", "3=ablate"]) {
    assert.deepEqual(
      parseIntervention(text, options),
      absolute(3, "ablate", 0),
    );
  }
  assert.deepEqual(parseIntervention("3@1", options), {
    ...absolute(3, "ablate", 0),
    layer: 1,
  });
  assert.deepEqual(parseIntervention("3=2:after=4", { mode: "add" }), {
    ...absolute(3, "add", 2),
    after: 4,
  });
});

Deno.test("parseIntervention() asks for the feature of a label when there are labels", () => {
  const asked: [string, number | undefined][] = [];
  const featureOf = (label: string, layer?: number): number =>
    asked.push([label, layer]) && 758;
  assert.deepEqual(
    parseIntervention("ice hockey = 5x", { featureOf }),
    { ...absolute(758, "clamp", 5), unit: "maximum" },
  );
  assert.equal(parseIntervention("12=1", { featureOf }).feature, 12);
  assert.deepEqual(
    parseIntervention("ice hockey@3=5:after=1", { featureOf }),
    { ...absolute(758, "clamp", 5), layer: 3, after: 1 },
  );
  assert.equal(parseIntervention("a@home=1", { featureOf }).feature, 758);
  assert.deepEqual(asked, [
    ["ice hockey", undefined],
    ["ice hockey", 3],
    ["a@home", undefined],
  ]);
});

Deno.test("parseIntervention() refuses other texts, in one line", () => {
  const texts = [
    ...["", "=", "758", "758=", "=5", "758=x", "758=5y", "758=5x:", "758=5=6"],
    ...["758=NaN", "758=Infinity", "758=1e999", "758=0x10", "758=5x:push"],
    ...["758=5x:ablate", "758=ablatex", "758=ablate:add", "baseball=5"],
    ...["758@=5", "758@x=5", "758@-1=5", "758@1.5=5", "@3=5", "758@3"],
    ...["758@4294967296=5", "758=5:after", "758=5:after=", "758=5:after=-1"],
    ...["758=5:after=1.5", "758=5:after=1e3", "758=5:after=4294967296"],
    ...["758=5:decay=0", "758=5:decay=4294967296", "758=5:later=3", "758=5::"],
    ...["758=5:after=1:after=2", "758=5:add:min", "758=5:add:add"],
    ...["758=after=3", "758=:after=3", "758=add:5", "758=5:add=3"],
  ];
  for (const text of texts) {
    assert.throws(
      () => parseIntervention(text),
      (error: Error) =>
        error instanceof SyntaxError && !error.message.includes("\n") &&
        error.message.startsWith(`Cannot read steering "${text}": expected `),
      text,
    );
  }
  assert.throws(() => parseIntervention("758=5", { mode: "ablate" }));
  assert.throws(() => parseIntervention("=5", { featureOf: () => 1 }));
});
