/**
 * The embedded model with its SAE, for tests of what is measured on both.
 * @module
 */
import { directory } from "../../core/files.ts";
import { hookPlace, type HookPoint } from "../../core/hook_point.ts";
import {
  type ModelFolder,
  openModelFolder,
  startTokenId,
} from "../../core/model_folder.ts";
import { Olmo2 } from "../../core/olmo2.ts";
import { Sae } from "../../core/sae.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { checkSaeFits } from "../../core/sae_fit.ts";
import { storybook } from "../../core/storybook.ts";
import {
  type TokenizedDocument,
  tokenizeDocuments,
} from "../../core/tokenized_text.ts";
import { testGpu } from "../gpu_for_tests.ts";

const models = (name: string): string =>
  new URL(`../../models/${name}`, import.meta.url).pathname;

/** Files of the embedded model. */
export function openTinyModel(): Promise<ModelFolder> {
  return openModelFolder(directory(models("tiny-olmo2")));
}

/** Files of its SAE. */
export function openTinySae(): Promise<SaeFile> {
  return SaeFile.open(directory(models("tiny-olmo2-sae")));
}

/** Both, on the GPU; dispose it when done. */
export class Embedded implements Disposable {
  /** The model's files. */
  readonly folder: ModelFolder;
  /** The SAE's files. */
  readonly saeFile: SaeFile;
  /** The model. */
  readonly model: Olmo2;
  /** The SAE. */
  readonly sae: Sae;
  /** Where the SAE reads. */
  readonly hookPoint: HookPoint;

  private constructor(
    files: Pick<Embedded, "folder" | "saeFile" | "hookPoint">,
    model: Olmo2,
    sae: Sae,
  ) {
    this.folder = files.folder;
    this.saeFile = files.saeFile;
    this.hookPoint = files.hookPoint;
    this.model = model;
    this.sae = sae;
  }

  /** Loads both. */
  static async load(): Promise<Embedded> {
    const gpu = await testGpu();
    const folder = await openTinyModel();
    const saeFile = await openTinySae();
    const hookPoint = checkSaeFits(saeFile, folder);
    const model = await Olmo2.load(gpu, folder.checkpoint, folder.config);
    const sae = await Sae.load(gpu, saeFile);
    return new Embedded({ folder, saeFile, hookPoint }, model, sae);
  }

  /** Block after which the SAE reads. */
  get layer(): number {
    return hookPlace(this.hookPoint).layer;
  }

  /** The first documents of a storybook, as token ids with labelled spans. */
  documents(
    seed: number,
    nDocuments: number,
  ): AsyncGenerator<TokenizedDocument> {
    const documents = storybook(seed).take(nDocuments)
      .map((document, i) => ({ id: `${seed}:${i}`, ...document }));
    return tokenizeDocuments(documents, this.folder.tokenizer, {
      startTokenId: startTokenId(this.folder),
      contextLength: 256,
    });
  }

  /** Frees both. */
  [Symbol.dispose](): void {
    this.sae[Symbol.dispose]();
    this.model[Symbol.dispose]();
  }
}
