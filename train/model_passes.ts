/**
 * Passes of a text through a model whose rows stay on the GPU.
 * @module
 */
import type { CorpusDocument } from "../core/text.ts";
import type { TokenizedDocument } from "../core/tokenized_text.ts";
import type { Gpu, Tensor } from "../gpu/mod.ts";
import { packedRowNorms } from "../kernels/packed_row_norms.ts";
import { packRows } from "../kernels/pack_rows.ts";
import { documentPasses, type PassConfig } from "./document_passes.ts";
import type { ResidualReader } from "./residual_reader.ts";
import type { RowFilter } from "./row_filter.ts";
import { rowWords } from "./row_ring.ts";

/** Where passes come from. */
export interface ModelPassesOptions extends PassConfig {
  readonly gpu: Gpu;
  /** The model; borrowed, and for nobody else meanwhile. */
  readonly reader: ResidualReader;
  /** What errors call the text. */
  readonly text: string;
  /** All documents of the text, in order; called once for each time that it is read. */
  readonly documents: () => AsyncIterable<CorpusDocument>;
  /** Tokens at the start of each document that are left out. */
  readonly skipFirst: number;
}

/** A pass that was submitted: its rows without those of skipped tokens. */
export interface ModelPass {
  /** Index of its first document. */
  readonly document: number;
  /** How many times the text was read to its end before it. */
  readonly epoch: number;
  /** Number of rows. */
  readonly n: number;
  /** Rows left out for their token. */
  readonly nSkipped: number;
  /** L2 norms of the rows, f32 `[n]`; -1 where a value is not finite. Rejects with document and position if that is refused. */
  readonly norms: Promise<Float32Array>;
}

/** Documents of a pass, and which of its tokens are rows. */
interface Plan {
  readonly documents: readonly TokenizedDocument[];
  readonly rows: Uint32Array<ArrayBuffer>;
  readonly nSkipped: number;
}

/** Endless passes: a text that ends starts over. One pass at a time is held. */
export class ModelPasses implements Disposable {
  /** Rows of the last pass, bf16 in whole words: u32 `[maxTokens, words]`. */
  readonly packed: Tensor;
  readonly #options: ModelPassesOptions;
  readonly #filter: RowFilter;
  readonly #rows: Tensor; // u32 [maxTokens]
  readonly #norms: Tensor; // f32 [maxTokens]
  readonly #owned = new DisposableStack();
  #passes: AsyncGenerator<TokenizedDocument[]> | undefined;
  #epoch = 0;
  #document = 0;
  /** First document of every time that the text is read. */
  #first = 0;

  /** Starts at the first document. */
  constructor(options: ModelPassesOptions, filter: RowFilter) {
    const { gpu, reader: { maxTokens, model } } = options;
    this.#options = options;
    this.#filter = filter;
    const tensor = (
      label: string,
      dtype: "u32" | "f32",
      shape: number[],
    ): Tensor => this.#owned.use(gpu.tensor(label, dtype, shape));
    const words = rowWords(model.config.d_model);
    this.packed = tensor("rows of a pass", "u32", [maxTokens, words]);
    this.#rows = tensor("which rows", "u32", [maxTokens]);
    this.#norms = tensor("norms of a pass", "f32", [maxTokens]);
  }

  /** First document of every time that the text is read. */
  get first(): number {
    return this.#first;
  }

  /** Leaves documents before this one out whenever the text starts over. */
  set first(document: number) {
    this.#first = document;
  }

  /** Goes on at a document, as if the text were read for the first time. */
  async seek(document: number): Promise<void> {
    await this.#passes?.return(undefined);
    this.#passes = undefined;
    this.#document = document;
  }

  /**
   * Submits the next pass that has rows; they lie in {@link packed} until the one after it.
   * @throws {RangeError} If the text has no such pass.
   */
  async next(): Promise<ModelPass> {
    const { reader } = this.#options;
    const { documents, rows, nSkipped } = await this.#plan();
    const n = rows.length;
    this.#rows.write(rows);
    reader.submit(documents.map(({ ids }) => ids), (rec, x) => {
      const packed = this.packed.rows(0, n);
      packRows.run(rec, { x, rows: this.#rows.rows(0, n), packed });
      packedRowNorms.run(rec, { packed, norms: this.#norms.rows(0, n) });
    });
    const norms = this.#checked(documents, rows, n);
    // A failure is thrown where they are awaited.
    norms.catch(() => {});
    return {
      document: documents[0]!.index,
      epoch: this.#epoch,
      n,
      nSkipped,
      norms,
    };
  }

  async #checked(
    documents: readonly TokenizedDocument[],
    rows: Uint32Array,
    n: number,
  ): Promise<Float32Array> {
    const { gpu, reader: { hookPoint }, text } = this.#options;
    const norms = await gpu.read(this.#norms.rows(0, n));
    const bad = norms.indexOf(-1);
    if (bad < 0 || this.#filter.skipBadRows) return norms;
    throw new RangeError(
      `Cannot train on "${text}": expected finite values of ${hookPoint}: got NaN or infinity in ${
        placeOf(documents, rows[bad]!)
      }: check the model, or leave bad vectors out`,
    );
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  async #plan(): Promise<Plan> {
    const { documents, reader: { model }, text } = this.#options;
    for (let nEnds = 0; nEnds < 2;) {
      this.#passes ??= documentPasses(
        documents(),
        model,
        this.#options,
        this.#document,
      );
      const { value } = await this.#passes.next() as {
        value: TokenizedDocument[] | undefined;
      };
      if (!value) {
        nEnds++;
        this.#epoch++;
        this.#document = this.#first;
        this.#passes = undefined;
        continue;
      }
      const plan = this.#rowsOf(value);
      if (plan.rows.length > 0) return plan;
    }
    throw new RangeError(
      `Cannot train on "${text}": expected documents of more than ${this.#options.skipFirst} tokens from document ${this.#first} on: got none with a token that is not left out`,
    );
  }

  #rowsOf(documents: readonly TokenizedDocument[]): Plan {
    const rows: number[] = [];
    let start = 0;
    let nSkipped = 0;
    for (const { ids } of documents) {
      for (let i = this.#options.skipFirst; i < ids.length; i++) {
        if (this.#filter.skipsToken(ids[i]!)) nSkipped++;
        else rows.push(start + i);
      }
      start += ids.length;
    }
    return { documents, rows: Uint32Array.from(rows), nSkipped };
  }
}

function placeOf(documents: readonly TokenizedDocument[], row: number): string {
  let position = row;
  for (const { ids, index, id } of documents) {
    if (position < ids.length) {
      return `document ${index} (${id}), position ${position}`;
    }
    position -= ids.length;
  }
  throw new RangeError(`Cannot find row ${row} of a pass`);
}
