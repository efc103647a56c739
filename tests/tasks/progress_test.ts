import { deepEqual, equal, ok } from "node:assert/strict";
import { Progress, type ProgressOutput } from "../../tasks/progress.ts";

/** An output that keeps what is written, and a clock that a test moves. */
class FakeOutput implements ProgressOutput {
  readonly written: string[] = [];
  ms = 1000;

  constructor(readonly isTerminal: boolean, readonly width = 120) {}

  columns(): number {
    return this.width;
  }

  write(text: string): void {
    this.written.push(text);
  }

  now(): number {
    return this.ms;
  }
}

const CLEAR = "\r\x1b[K";
const COLLECT = { label: "collect", unit: "documents", total: 200 };

Deno.test("Progress draws one line anew on a terminal, at most ten times a second", () => {
  const output = new FakeOutput(true);
  using bar = new Progress(COLLECT, output);
  output.ms += 2000;
  bar.update(50, "5 tokens/s");
  output.ms += 99;
  bar.update(51);
  deepEqual(output.written, [
    `${CLEAR}collect [#####---------------] 25 % 50/200 documents  25.0 documents/s  6.0 s left  5 tokens/s`,
  ]);
  output.ms += 1;
  bar.update(100);
  equal(output.written.length, 2);
  ok(output.written[1]!.startsWith(`${CLEAR}collect [##########--`));
});

Deno.test("Progress is cut at the terminal's last column but one", () => {
  const output = new FakeOutput(true, 30);
  using bar = new Progress(COLLECT, output);
  bar.update(50, "a long detail that does not fit");
  equal(output.written[0]!.length - CLEAR.length, 29);
});

Deno.test("Progress writes plain lines, ten seconds apart, where there is no terminal", () => {
  const output = new FakeOutput(false);
  using bar = new Progress(COLLECT, output);
  for (let done = 1; done <= 199; done++) {
    output.ms += 110;
    bar.update(done);
  }
  deepEqual(output.written, [
    "collect 45 % 91/200 documents  9.09 documents/s  12 s left\n",
    "collect 91 % 182/200 documents  9.09 documents/s  2.0 s left\n",
  ]);
});

Deno.test("Progress counts the rate from where a resumed run begins", () => {
  const output = new FakeOutput(true);
  using bar = new Progress({ ...COLLECT, start: 100 }, output);
  output.ms += 10_000;
  bar.update(110);
  ok(output.written[0]!.endsWith("1.00 documents/s  1 min 30 s left"));
});

Deno.test("Progress without a total shows neither bar nor time left", () => {
  const output = new FakeOutput(true);
  using bar = new Progress({ label: "read", unit: "tokens" }, output);
  output.ms += 1000;
  bar.update(1234);
  deepEqual(output.written, [`${CLEAR}read 1,234 tokens  1,234 tokens/s`]);
});

Deno.test("Progress ends with a line that sums up, once", () => {
  const output = new FakeOutput(true);
  using bar = new Progress(COLLECT, output);
  output.ms += 4000;
  bar.update(200, "loss 1");
  bar.end();
  bar.end();
  bar.update(200);
  deepEqual(output.written.slice(1), [
    CLEAR,
    "collect: 200 documents in 4.0 s, 50.0 documents/s, loss 1\n",
  ]);
});

Deno.test("Progress clears its line when it is disposed of before the end", () => {
  const output = new FakeOutput(true);
  {
    using bar = new Progress(COLLECT, output);
    bar.update(1);
  }
  equal(output.written.at(-1), CLEAR);
});

Deno.test("Progress puts a note on a line of its own", () => {
  const output = new FakeOutput(true);
  using bar = new Progress(COLLECT, output);
  bar.update(1);
  bar.note("saved");
  deepEqual(output.written.slice(1, 3), [CLEAR, "saved\n"]);
  ok(output.written[3]!.startsWith(`${CLEAR}collect`));
});

Deno.test("Progress writes nothing when quiet", () => {
  for (const isTerminal of [true, false]) {
    const output = new FakeOutput(isTerminal);
    {
      using bar = new Progress({ ...COLLECT, quiet: true }, output);
      output.ms += 60_000;
      bar.update(100);
      bar.end();
    }
    deepEqual(output.written, []);
  }
});
