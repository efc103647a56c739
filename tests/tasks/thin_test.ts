import { deepEqual, equal, ok } from "node:assert/strict";
import { average, thin } from "../../tasks/thin.ts";

const wave = (n: number) =>
  Array.from({ length: n }, (_, x) => ({ x, y: Math.sin(x / 500) }));

Deno.test("thin() keeps the ends and every spike, up and down, in order", () => {
  const points = wave(100_000);
  points[31_415] = { x: 31_415, y: 99 };
  points[77_777] = { x: 77_777, y: -99 };
  const thinned = thin(points, 300);
  ok(thinned.length <= 1200 && thinned.length >= 300, `${thinned.length}`);
  for (const at of [0, 31_415, 77_777, 99_999]) {
    ok(thinned.some(({ x }) => x === at), `${at}`);
  }
  const xs = thinned.map(({ x }) => x);
  deepEqual(xs, [...new Set(xs)].toSorted((a, b) => a - b));
});

Deno.test("thin() leaves short curves as they are, without what is not finite", () => {
  const points = wave(50);
  deepEqual(thin(points, 300), points);
  deepEqual(thin([{ x: 0, y: NaN }, { x: 1, y: 2 }], 300), [{ x: 1, y: 2 }]);
  deepEqual(thin([], 300), []);
});

Deno.test("thin() takes steps that are far apart and many at one place", () => {
  const far = [...wave(5000), { x: 1e9, y: 3 }];
  const thinned = thin(far, 100);
  deepEqual(thinned.at(-1), { x: 1e9, y: 3 });
  const same = Array.from({ length: 5000 }, (_, y) => ({ x: 7, y }));
  deepEqual(thin(same, 100), [{ x: 7, y: 0 }, { x: 7, y: 4999 }]);
});

Deno.test("average() keeps the mean", () => {
  const points = Array.from({ length: 1000 }, (_, x) => ({ x, y: x % 10 }));
  const averaged = average(points, 100);
  equal(averaged.length, 100);
  for (const { y } of averaged) ok(Math.abs(y - 4.5) < 1);
  deepEqual(average(points.slice(0, 3), 100), points.slice(0, 3));
});
