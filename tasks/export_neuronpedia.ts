/**
 * `export --to neuronpedia`.
 * @module
 */
// deno-lint-ignore-file no-console
import { basename } from "node:path";
import { fingerprint } from "../core/files.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { hookPlace } from "../core/hook_point.ts";
import { Olmo2 } from "../core/olmo2.ts";
import { logitLens } from "../steer/logit_lens.ts";
import {
  neuronpediaFiles,
  type NeuronpediaNames,
  sourceId,
} from "../steer/neuronpedia.ts";
import { type TaskContext, userPath } from "./cli.ts";
import {
  type ExportSourceFlags,
  type ExportSources,
  openExportSources,
} from "./export_sources.ts";
import { modelBytes } from "./memory.ts";
import { checkNewFolder, writeNewFolder } from "./new_folder.ts";

/** What Neuronpedia wants to know beside the features. */
export const NEURONPEDIA_FLAGS = {
  model_id: {
    type: "string",
    help: "Neuronpedia's id of the model; from its name without it",
  },
  source_set: {
    type: "string",
    help: "set of SAEs that this one is of; res-16k without it, by its size",
  },
  release: { default: "open-concept-steering", help: "id of the release" },
  release_title: {
    type: "string",
    help: "what the release is called; its id without it",
  },
  url: { type: "string", help: "page about the release" },
  creator: { default: "open-concept-steering", help: "who made it" },
  creator_id: {
    default: "clkht01d40000jv08hvalcvly",
    help:
      "id of the Neuronpedia user that it belongs to; its default user without it",
  },
  hf_repo: {
    type: "string",
    help: "owner/name of the repository that has the weights",
  },
  hf_folder: { type: "string", help: "their folder in it" },
  vectors: {
    default: false,
    help: "with decoder directions, 10 bytes for each of their values",
  },
} as const satisfies FlagTable;

/** Values of the flags. */
type Flags = ConfigOf<typeof NEURONPEDIA_FLAGS> & ExportSourceFlags & {
  readonly gpu: string | undefined;
};

/** Writes the tree, and prints its folder. */
export async function exportNeuronpedia(
  out: string,
  flags: Flags,
  context: TaskContext,
): Promise<void> {
  const folder = userPath(out);
  checkNewFolder(folder);
  const sources = await openExportSources(flags);
  const { sae, model, index, labels, hookPoint } = sources;
  const names = await namesOf(sources, flags);
  const { config, checkpoint, tokenizer } = model;
  const gpu = await context.openGpu(flags.gpu);
  const part = { nLayers: 0, withHead: true };
  context.plan([{ what: "head", bytes: modelBytes(model, part) }]);
  using olmo2 = await Olmo2.load(gpu, checkpoint, config, part);
  const rowsOfDecoder = (
    start: number,
    end: number,
  ): Promise<Float32Array<ArrayBuffer>> => sae.rowsOfDecoder(start, end);
  const lenses = logitLens(olmo2, {
    d_sae: sae.d_sae,
    rowsOfDecoder,
    nVocab: tokenizer.vocabSize,
    ...(hookPlace(hookPoint).site === "resid_post" && {
      finalNorm: await checkpoint.floats("model.norm.weight"),
    }),
  });
  using bar = context.progress({
    label: "export",
    unit: "features",
    total: sae.d_sae,
  });
  await writeNewFolder(folder, async (write) => {
    const files = neuronpediaFiles({
      ...{ names, index, labels, tokenizer, lenses },
      ...(flags.vectors && { rowsOfDecoder }),
    });
    for await (const { path, content, nFeatures } of files) {
      context.signal.throwIfAborted();
      await write(path, content);
      bar.update(nFeatures);
    }
  });
  bar.end();
  console.log(`${folder}/${names.modelId}/${sourceId(names)}`);
}

async function namesOf(
  { sae, model, hookPoint, index }: ExportSources,
  flags: Flags,
): Promise<NeuronpediaNames> {
  const { config } = model;
  const { site, layer } = hookPlace(hookPoint);
  const isStream = site === "resid_post";
  const { modelName = model.name, contextLength = null } = sae.metadata;
  const [size, site_] = [sizeName(sae.d_sae), isStream ? "res" : "norm"];
  const {
    model_id = basename(modelName).toLowerCase().replace(/[^a-z0-9_-]+/g, "-"),
    source_set = `${site_}-${size}`,
  } = flags;
  checkId("--model-id", model_id);
  checkId("--source-set", source_set);
  checkId("--release", flags.release);
  const id = { model_id, layer, source_set, of: index.header.saeFingerprint };
  return {
    modelId: model_id,
    model: {
      instruct: /-(?:it|instruct|chat)$/i.test(model_id),
      dimension: config.d_model,
      layers: config.n_layers,
      neuronsPerLayer: config.d_ffn,
      owner: modelName.includes("/") ? modelName.split("/")[0]! : "",
    },
    layer,
    hookName: isStream ? `blocks.${layer}.hook_resid_post` : null,
    sourceSet: source_set,
    description: `${isStream ? "Residual Stream" : "Final Norm"} - ${size}`,
    release: {
      name: flags.release,
      title: flags.release_title ?? flags.release,
      urls: flags.url === undefined ? [] : [flags.url],
    },
    creatorName: flags.creator,
    creatorId: flags.creator_id,
    contextLength,
    hfRepoId: flags.hf_repo ?? null,
    hfFolderId: flags.hf_folder ?? null,
    createdAt: new Date().toISOString(),
    idPrefix: await fingerprint(id),
  };
}

/** 65536 as 65k, 1536 as 1536. */
function sizeName(d_sae: number): string {
  return d_sae % 1024 === 0 ? `${Math.floor(d_sae / 1000)}k` : String(d_sae);
}

/** Ids become folders and addresses. */
function checkId(flag: string, id: string): void {
  if (/^[A-Za-z0-9_-]{1,128}$/.test(id)) return;
  throw new TypeError(
    `Cannot export with ${flag} ${
      JSON.stringify(id)
    }: expected letters, digits, - and _`,
  );
}
