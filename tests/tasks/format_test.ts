import { equal } from "node:assert/strict";
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatRate,
  formatTable,
} from "../../tasks/format.ts";

Deno.test("formatBytes() gives three digits and climbs before they are four", () => {
  const cases: [number, string][] = [
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.00 kB"],
    [9996, "10.0 kB"],
    [99_960, "100 kB"],
    [999_600, "1.00 MB"],
    [10_236_288, "10.2 MB"],
    [137_400_000_000, "137 GB"],
    [5e15, "5000 TB"],
  ];
  for (const [bytes, text] of cases) equal(formatBytes(bytes), text);
});

Deno.test("formatDuration() gives the two largest units", () => {
  const cases: [number, string][] = [
    [40, "0.0 s"],
    [9949, "9.9 s"],
    [9960, "10 s"],
    [59_400, "59 s"],
    [59_600, "1 min 0 s"],
    [3_599_000, "59 min 59 s"],
    [7_500_000, "2 h 5 min"],
  ];
  for (const [ms, text] of cases) equal(formatDuration(ms), text);
});

Deno.test("formatRate() and formatCount() group thousands", () => {
  equal(formatRate(0.125), "0.125");
  equal(formatRate(96.14), "96.1");
  equal(formatRate(5391.4), "5,391");
  equal(formatCount(176_727), "176,727");
});

Deno.test("formatTable() puts numbers to the right and names to the left", () => {
  equal(
    formatTable(["name", "value", "note"], [
      ["FVU", "0.5", "a"],
      ["dead features", "-12.25 %", ""],
    ]),
    [
      "name              value  note",
      "-------------  --------  ----",
      "FVU                 0.5  a",
      "dead features  -12.25 %",
    ].join("\n"),
  );
});
