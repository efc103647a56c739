/**
 * The worker that reads, checks, filters and assembles batches ahead of the
 * trainer; `prefetched_batches.ts` is its other end.
 * @module
 */
import { ResidualFolder } from "../core/residuals.ts";
import type {
  BatchOptions,
  BatchPosition,
  DroppedRows,
} from "./batch_source.ts";
import { Batches, rowGroupsOf } from "./batches.ts";
import { type FolderAddress, openFolderAt } from "./folder_address.ts";
import type { RowStatistics } from "./row_statistics.ts";

/** What the worker is asked for. */
export type ToBatchWorker =
  | {
    readonly kind: "open";
    /** Of the residuals. */
    readonly folder: FolderAddress;
    readonly options: BatchOptions;
  }
  /** Allows another batch. */
  | { readonly kind: "more" }
  /** Goes to a position; batches of before are no longer wanted, and `nWanted` are. */
  | {
    readonly kind: "restore";
    readonly position: BatchPosition;
    readonly run: number;
    readonly nWanted: number;
  }
  /** Asks for the next held-out vectors, or the first ones. */
  | { readonly kind: "heldOut"; readonly isFirst: boolean };

/** What it answers. */
export type FromBatchWorker =
  | {
    readonly kind: "opened";
    readonly name: string;
    readonly d_model: number;
    readonly statistics: RowStatistics;
    readonly position: BatchPosition;
    readonly dropped: DroppedRows;
  }
  | {
    readonly kind: "batch";
    readonly rows: Uint16Array<ArrayBuffer>;
    /** After this batch. */
    readonly position: BatchPosition;
    readonly dropped: DroppedRows;
    /** How many times the batches were restored before it. */
    readonly run: number;
  }
  | { readonly kind: "restored"; readonly run: number }
  | {
    readonly kind: "heldOut";
    /** undefined at the end. */
    readonly rows: Uint16Array<ArrayBuffer> | undefined;
  }
  | {
    readonly kind: "failed";
    /** What was to come instead. */
    readonly what: "opened" | "batch" | "restored" | "heldOut";
    readonly run: number;
    readonly name: string;
    readonly message: string;
    readonly stack: string | undefined;
  };

/** The scope of a worker, as far as it is used; the types of the main scope lack it. */
interface WorkerScope {
  postMessage(message: FromBatchWorker, transfer?: Transferable[]): void;
  addEventListener(
    type: "message",
    listener: (event: MessageEvent<ToBatchWorker>) => void,
  ): void;
}

/** Answers requests, one after the other. */
class BatchServer {
  readonly #scope: WorkerScope;
  #batches: Promise<Batches> | undefined;
  #heldOut: AsyncGenerator<Uint16Array<ArrayBuffer>> | undefined;
  /** Which restoring, counted from 0 before the first, the batches that are wanted come after. */
  #run = 0;
  /** Everything that touches the batches, one after the other. */
  #turn: Promise<void> = Promise.resolve();

  constructor(scope: WorkerScope) {
    this.#scope = scope;
    scope.addEventListener("message", ({ data }) => this.#take(data));
  }

  #take(request: ToBatchWorker): void {
    switch (request.kind) {
      case "open":
        return this.#queue("opened", () => this.#open(request));
      case "more":
        return this.#queueBatch(this.#run);
      case "restore":
        // Batches that were asked for before are not wanted any more.
        this.#run = request.run;
        this.#queue("restored", async () => {
          (await this.#opened()).restore(request.position);
          this.#scope.postMessage({ kind: "restored", run: request.run });
        });
        for (let i = 0; i < request.nWanted; i++) this.#queueBatch(request.run);
        return;
      case "heldOut":
        return this.#queue("heldOut", () => this.#sendHeldOut(request.isFirst));
    }
  }

  async #open(
    { folder, options }: ToBatchWorker & { kind: "open" },
  ): Promise<void> {
    const opening = openFolder(folder, options);
    this.#batches = opening;
    const { name, d_model, statistics, position, dropped } = await opening;
    this.#scope.postMessage({
      kind: "opened",
      name,
      d_model,
      statistics,
      position,
      dropped,
    });
  }

  #queueBatch(run: number): void {
    this.#queue("batch", async () => {
      if (run !== this.#run) return;
      const batches = await this.#opened();
      const rows = await batches.next();
      const { position, dropped } = batches;
      this.#scope.postMessage(
        { kind: "batch", rows, position, dropped, run },
        [rows.buffer],
      );
    }, run);
  }

  async #sendHeldOut(isFirst: boolean): Promise<void> {
    if (isFirst) this.#heldOut = (await this.#opened()).heldOut();
    const { value } = await this.#heldOut!.next() as {
      value: Uint16Array<ArrayBuffer> | undefined;
    };
    this.#scope.postMessage(
      { kind: "heldOut", rows: value },
      value ? [value.buffer] : [],
    );
  }

  #opened(): Promise<Batches> {
    if (this.#batches) return this.#batches;
    throw new Error(
      "Cannot make batches: expected a folder to be opened first",
    );
  }

  #queue(
    what: "opened" | "batch" | "restored" | "heldOut",
    task: () => Promise<void>,
    run = this.#run,
  ): void {
    this.#turn = this.#turn.then(task).catch((error: unknown) => {
      const { name, message, stack } = error instanceof Error
        ? error
        : new Error(String(error));
      this.#scope.postMessage({
        kind: "failed",
        what,
        run,
        name,
        message,
        stack,
      });
    });
  }
}

async function openFolder(
  address: FolderAddress,
  options: BatchOptions,
): Promise<Batches> {
  const folder = await ResidualFolder.open(openFolderAt(address));
  return await Batches.open(await rowGroupsOf(folder, options), options);
}

new BatchServer(globalThis as unknown as WorkerScope);
