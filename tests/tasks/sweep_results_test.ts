import { equal, match, ok } from "node:assert/strict";
import { sweepReport } from "../../tasks/sweep_report.ts";
import {
  describeResults,
  resultsCsv,
  type SweepResult,
} from "../../tasks/sweep_results.ts";

const DONE: SweepResult = {
  name: "lambda=1",
  values: { lambda: 1 },
  status: "complete",
  error: null,
  fvu: 0.08,
  L0: 25.5,
  deadShare: 0.01,
  loss: {
    recoveredFromZero: 0.95,
    recoveredFromMean: 0.9,
    ceModel: 0.9,
    ceSae: 1,
  },
  steps: 2000,
  seconds: 75,
};

const FAILED: SweepResult = {
  ...DONE,
  name: "lambda=2",
  values: { lambda: 2 },
  status: "failed",
  error: 'Cannot <read> "a, b"',
  fvu: null,
  L0: null,
  deadShare: null,
  loss: null,
  steps: null,
};

Deno.test("describeResults() shows what is known, the status only where something is missing", () => {
  const table = describeResults([DONE, FAILED]);
  match(
    table,
    /^lambda +FVU +L0 +dead % +CE recovered +steps +time +status$/m,
  );
  match(
    table,
    /^ +1 +0\.0800 +25\.50 +1\.00 +0\.9500 +2,000 +1 min 15 s +complete$/m,
  );
  match(table, /^ +2 +1 min 15 s +failed$/m);
  equal(describeResults([DONE]).includes("status"), false);
  equal(describeResults([{ ...DONE, loss: null }]).includes("CE"), false);
});

Deno.test("resultsCsv() quotes what needs it and leaves unknown values empty", () => {
  const [heading, first, second, end] = resultsCsv([DONE, FAILED]).split(
    "\r\n",
  );
  equal(
    heading,
    "name,lambda,status,fvu,L0,dead_share,ce_recovered_from_zero,ce_recovered_from_mean,steps,seconds,error",
  );
  equal(first, "lambda=1,1,complete,0.08,25.5,0.01,0.95,0.9,2000,75,");
  equal(second, 'lambda=2,2,failed,,,,,,,75,"Cannot <read> ""a, b"""');
  equal(end, "");
});

Deno.test("sweepReport() plots complete runs only, once for each measure that there is", () => {
  const page = sweepReport("A <sweep>", [DONE, FAILED]);
  match(page, /<h1>A &lt;sweep><\/h1>/);
  equal(page.match(/<svg /g)?.length, 2);
  equal(page.match(/<circle /g)?.length, 2);
  match(page, /<b>lambda=2<\/b>: Cannot &lt;read> &quot;a, b&quot;/);
  const nothing = sweepReport("none", [FAILED]);
  ok(!nothing.includes("<svg"));
  const plain = sweepReport("plain", [{ ...DONE, loss: null }]);
  equal(plain.match(/<svg /g)?.length, 1);
});
