import { deepEqual, equal, notDeepEqual, ok, throws } from "node:assert/strict";
import { bf16ToF32 } from "../../core/dtype.ts";
import { directory } from "../../core/files.ts";
import { openModelFolder, startTokenId } from "../../core/model_folder.ts";
import { Rng } from "../../core/rng.ts";
import { readDocuments } from "../../core/text.ts";
import { tokenizeDocuments } from "../../core/tokenized_text.ts";
import type { Gpu } from "../../gpu/mod.ts";
import type { BatchOnGpu } from "../../train/batch_source.ts";
import { LiveBatches, type LiveOptions } from "../../train/live_batches.ts";
import type { LiveDocument } from "../../train/live_passes.ts";
import { ResidualReader } from "../../train/residual_reader.ts";
import { RowMeasure } from "../../train/row_statistics.ts";
import { poison } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;
const D = 192;
const MAX_TOKENS = 100;
const SKIP_FIRST = 2;
const BATCH = 24;

interface Live extends Disposable {
  readonly gpu: Gpu;
  readonly options: LiveOptions;
  /** The documents of the text. */
  readonly documents: readonly LiveDocument[];
  /** First documents of the passes over the text that were begun. */
  readonly opened: number[];
  /** How often the model was run. */
  readonly runs: { count: number };
}

/** The tiny model, with the first documents of the storybook, cut at 48 tokens. */
async function live(
  nDocuments: number,
  fields: Partial<LiveOptions> = {},
): Promise<Live> {
  const gpu = await testGpu();
  const model = await openModelFolder(directory(MODEL));
  const text = `storybook:101:${nDocuments}`;
  const documents = await Array.fromAsync(tokenizeDocuments(
    readDocuments(text, () => Promise.reject()),
    model.tokenizer,
    { startTokenId: startTokenId(model), contextLength: 48 },
  ));
  const reader = await ResidualReader.load(gpu, model, {
    hookPoint: "resid_post[1]",
    maxTokens: MAX_TOKENS,
  });
  const runs = { count: 0 };
  const submit = reader.submit.bind(reader);
  reader.submit = (sequences): void => {
    runs.count++;
    submit(sequences);
  };
  const opened: number[] = [];
  const options: LiveOptions = {
    gpu,
    reader,
    name: text,
    async *documents(first): AsyncGenerator<LiveDocument> {
      opened.push(first);
      yield* documents.slice(first);
    },
    skipFirst: SKIP_FIRST,
    batch: BATCH,
    bufferRows: 300,
    holdOut: 0,
    seed: 7,
    ...fields,
  };
  return {
    gpu,
    options,
    documents,
    opened,
    runs,
    [Symbol.dispose]: () => reader[Symbol.dispose](),
  };
}

/** What fill() gives for a batch, f32 `[batch, d_model]`. */
async function filled(
  gpu: Gpu,
  batch: BatchOnGpu,
  scale: number,
  nRows = BATCH,
): Promise<number[]> {
  using x = gpu.floats("x", [nRows, D], poison(nRows * D));
  gpu.record("fill", (rec) => batch.fill(rec, x, scale));
  return [...await gpu.read(x)];
}

async function draw(
  gpu: Gpu,
  batches: LiveBatches,
  n: number,
): Promise<number[][]> {
  const drawn: number[][] = [];
  while (drawn.length < n) {
    drawn.push(await filled(gpu, await batches.next(), 0.5));
  }
  return drawn;
}

/** Rows of bf16 bits to keep of each pass over the text, packed here anew and read by the host. */
async function passRows(
  { options: { reader }, documents }: Live,
): Promise<Uint16Array<ArrayBuffer>[][]> {
  const passes: LiveDocument[][] = [[]];
  let nTokens = 0;
  for (const document of documents) {
    nTokens += document.ids.length;
    if (nTokens > MAX_TOKENS) {
      passes.push([]);
      nTokens = document.ids.length;
    }
    passes.at(-1)!.push(document);
  }
  const all: Uint16Array<ArrayBuffer>[][] = [];
  for (const pass of passes) {
    reader.submit(pass.map(({ ids }) => ids));
    const rows = await reader.rows();
    const kept: Uint16Array<ArrayBuffer>[] = [];
    let t = 0;
    for (const { ids } of pass) {
      for (const i of ids.keys()) {
        if (i >= SKIP_FIRST) kept.push(rows.slice(t * D, (t + 1) * D));
        t++;
      }
    }
    all.push(kept);
  }
  return all;
}

function scaled(row: Uint16Array<ArrayBuffer>, scale: number): number[] {
  return [...bf16ToF32(row).map((value) => value * scale)];
}

/** The passes that a reservoir of `bufferRows` holds from one on, one at least; `place` counts on over epochs. */
function held<T>(passes: readonly T[][], place: number, most: number): T[] {
  const rows: T[] = [...passes[place % passes.length]!];
  for (let at = place + 1;; at++) {
    const next = passes[at % passes.length]!;
    if (rows.length + next.length > most) return rows;
    rows.push(...next);
  }
}

Deno.test("LiveBatches draws the rows that the model gives, times the scale, epoch after epoch", async () => {
  using text = await live(16);
  const { gpu, options } = text;
  const passes = await passRows(text);
  ok(passes.length > 5);
  using batches = await LiveBatches.open(options);
  const rng = new Rng(7).fork("batches");
  const scale = Math.fround(batches.statistics.inputScale);
  let [place, nDrawn] = [0, 0];
  // Enough for two epochs and a half.
  const nRows = passes.flat().length;
  for (let step = 0; step < 2.5 * nRows / BATCH; step++) {
    const rows = held(passes, place, 300);
    const want = Array.from(
      { length: BATCH },
      () => scaled(rows[rng.below(rows.length)]!, scale),
    );
    const got = await filled(gpu, await batches.next(), scale);
    deepEqual(got, want.flat(), `step ${step}`);
    nDrawn += BATCH;
    while (nDrawn >= passes[place % passes.length]!.length) {
      nDrawn -= passes[place++ % passes.length]!.length;
    }
    equal(batches.position.firstGroup, place);
    equal(batches.position.nDrawn, nDrawn);
  }
  ok(place > 2 * passes.length, `${place} passes left`);
});

Deno.test("LiveBatches measures the rows that fill the reservoir first", async () => {
  using text = await live(16, { init: "median" });
  const rows = held(await passRows(text), 0, 300);
  using batches = await LiveBatches.open(text.options);
  const measure = new RowMeasure(D, { init: "median", nMost: rows.length });
  for (const row of rows) measure.add(row);
  deepEqual(batches.statistics, measure.finish("rows"));
});

Deno.test("LiveBatches.restore() goes on to the bit, by the document or by reading from the start", async () => {
  for (const holdOut of [0, 130]) {
    using text = await live(16, { holdOut });
    const { gpu, options, opened } = text;
    using straight = await LiveBatches.open(options);
    await draw(gpu, straight, 41);
    const position = JSON.parse(JSON.stringify(straight.position));
    ok(position.firstGroup > 4);
    const rest = await draw(gpu, straight, 30);
    const { document, ...place } = position;
    for (const from of [position, place]) {
      using resumed = await LiveBatches.open(options);
      await draw(gpu, resumed, 3);
      opened.length = 0;
      await resumed.restore(from);
      if (from === position) equal(opened[0], document);
      deepEqual(resumed.position, position);
      deepEqual(await draw(gpu, resumed, 30), rest);
    }
    // Back, too, and within the same passes.
    await straight.restore(position);
    deepEqual(await draw(gpu, straight, 30), rest);
    await straight.restore(straight.position);
    notDeepEqual(await draw(gpu, straight, 1), rest[0]);
  }
});

Deno.test("LiveBatches.restore() finds a pass some epochs on without reading all of them", async () => {
  using text = await live(9, { bufferRows: 150 });
  const { gpu, options, opened } = text;
  using straight = await LiveBatches.open(options);
  await draw(gpu, straight, 90);
  const { document: _, ...position } = straight.position;
  const rest = await draw(gpu, straight, 20);
  const nPasses = (await passRows(text)).length;
  ok(position.firstGroup > 4 * nPasses, `${position.firstGroup}`);
  using resumed = await LiveBatches.open(options);
  opened.length = 0;
  await resumed.restore(position);
  ok(opened.length <= 3, `${opened}`);
  deepEqual(await draw(gpu, resumed, 20), rest);
});

Deno.test("LiveBatches keeps a text that fits, and runs the model no more", async () => {
  using text = await live(5, { bufferRows: 1000 });
  const { gpu, options, runs } = text;
  const rows = (await passRows(text)).flat();
  runs.count = 0;
  using batches = await LiveBatches.open(options);
  equal(batches.statistics.n, rows.length);
  const before = runs.count;
  const drawn = await draw(gpu, batches, 60);
  equal(runs.count, before);
  const known = new Set(rows.map((row) => scaled(row, 0.5).join()));
  const seen = new Set<string>();
  for (const x of drawn) {
    for (let b = 0; b < BATCH; b++) {
      seen.add(x.slice(b * D, (b + 1) * D).join());
    }
  }
  // 1,440 draws: a row is missed with probability below e⁻⁶.
  ok(seen.isSubsetOf(known));
  ok(seen.size > 0.9 * known.size, `${seen.size} of ${known.size}`);
  equal(batches.position.firstGroup, 0);
  await rejectsInOneLine(
    () => batches.restore({ ...batches.position, firstGroup: 1 }),
    /^RangeError: Cannot resume the batches of "storybook:101:5": expected a position of this text: got pass 1, 0 drawn, document 0$/,
  );
});

Deno.test("LiveBatches keeps the rows of batches that are recorded after the model ran again", async () => {
  using text = await live(16, { bufferRows: 100 });
  const { gpu, options } = text;
  using one = await LiveBatches.open(options);
  const want = await draw(gpu, one, 30);
  using two = await LiveBatches.open(options);
  const later: BatchOnGpu[] = [];
  while (later.length < 30) later.push(await two.next());
  const got: number[][] = [];
  for (const batch of later) got.push(await filled(gpu, batch, 0.5));
  deepEqual(got, want);
  throws(
    () => gpu.record("again", (rec) => later[0]!.fill(rec, undefined!, 1)),
    /^Error: Cannot record a batch: expected one that was not recorded before: draw the next one$/,
  );
});

Deno.test("LiveBatches draws batches larger than what is in the reservoir later", async () => {
  using text = await live(16, { batch: 83, bufferRows: 1 });
  const { gpu, options, runs } = text;
  using batches = await LiveBatches.open(options);
  for (let step = 0; step < 40; step++) await batches.next();
  const { position } = batches;
  ok(runs.count < position.firstGroup, "passes were left out");
  const want = await filled(gpu, await batches.next(), 1, 83);
  using resumed = await LiveBatches.open(options);
  await resumed.restore(position);
  deepEqual(await filled(gpu, await resumed.next(), 1, 83), want);
});

Deno.test("LiveBatches holds out the first rows, and draws none of them", async () => {
  using text = await live(12, { holdOut: 130 });
  const { gpu, options } = text;
  const rows = (await passRows(text)).flat();
  using batches = await LiveBatches.open(options);
  const heldOut = await Array.fromAsync(batches.heldOut());
  deepEqual(
    heldOut.flatMap((part) => [...part]),
    rows.slice(0, 130).flatMap((row) => [...row]),
  );
  const key = (row: Uint16Array<ArrayBuffer>): string =>
    scaled(row, 0.5).join();
  const trained = new Set(rows.slice(130).map(key));
  for (const x of await draw(gpu, batches, 50)) {
    for (let b = 0; b < BATCH; b++) {
      ok(trained.has(x.slice(b * D, (b + 1) * D).join()));
    }
  }
});

Deno.test("LiveBatches leaves out rows of tokens, and counts each once", async () => {
  using plain = await live(5, { bufferRows: 1000 });
  const kept = plain.documents.flatMap(({ ids }) => [...ids].slice(SKIP_FIRST));
  const token = kept[3]!;
  const nSkipped = kept.filter((id) => id === token).length;
  const options = { ...plain.options, skipTokens: [token] };
  using batches = await LiveBatches.open(options);
  equal(batches.statistics.n, kept.length - nSkipped);
  equal(batches.dropped.skippedTokens, nSkipped);
});

Deno.test("LiveBatches.open() refuses a text that is too short", async () => {
  using text = await live(2);
  const n = (await passRows(text)).flat().length;
  await rejectsInOneLine(
    () => LiveBatches.open({ ...text.options, batch: n + 1 }),
    new RegExp(
      `^RangeError: Cannot train on "storybook:101:2": expected at least the ${
        n + 1
      } vectors of a batch to draw from: got ${n}: `,
    ),
  );
  using exact = await LiveBatches.open({ ...text.options, batch: n });
  equal(exact.statistics.n, n);
  await rejectsInOneLine(
    () => LiveBatches.open({ ...text.options, holdOut: n }),
    new RegExp(
      `^RangeError: Cannot train on "storybook:101:2": expected more than the ${n} vectors that are held out: got ${n}: `,
    ),
  );
});
