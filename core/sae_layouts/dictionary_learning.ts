/**
 * dictionary_learning: `ae.pt`, the state dict of one of its classes, beside `config.json`, which names the class.
 * Features are as `load_dictionary` gives them, so those of AutoEncoder with decoder rows of norm 1.
 * Source: dictionary_learning, `dictionary.py`, `utils.py` and `trainers/`.
 * @module
 */
import { z } from "zod";
import { checkJson } from "../check_json.ts";
import { type HookPoint, hookPointNamed } from "../hook_point.ts";
import type { SaeMetadata } from "../sae_config.ts";
import {
  constantVector,
  decoderNorms,
  foldGates,
  foldInputBias,
  type LazyVector,
  type SaeForm,
  scaleFeatures,
  storedVector,
} from "../sae_form.ts";
import { featureRows, matrixSizes, scalar } from "../sae_rows.ts";
import type { TensorFile } from "../tensor_file.ts";

/** Where each class has its tensors. */
const CLASSES = {
  AutoEncoder: { bias: "bias" },
  AutoEncoderNew: { bias: "decoder.bias" },
  AutoEncoderTopK: { bias: "b_dec" },
  BatchTopKSAE: { bias: "b_dec" },
  GatedAutoEncoder: { bias: "decoder_bias" },
  JumpReluAutoEncoder: { bias: "b_dec" },
  MatryoshkaBatchTopKSAE: { bias: "b_dec" },
} as const;

type ClassName = keyof typeof CLASSES;
const CLASS_NAMES = Object.keys(CLASSES) as [ClassName, ...ClassName[]];

const Config = z.object({
  trainer: z.object({
    dict_class: z.enum(CLASS_NAMES),
    k: z.int().min(1).nullish(),
    layer: z.int().min(0).nullish(),
    lm_name: z.string().nullish(),
    submodule_name: z.string().nullish(),
  }),
  buffer: z.object({
    io: z.string().nullish(),
    ctx_len: z.int().min(1).nullish(),
  }).nullish(),
});
type Config = z.infer<typeof Config>;

/**
 * The SAE of a file.
 * @param json Its config; without one, the class is the one that alone has its tensors.
 * @throws {SyntaxError} If the config is damaged, or names another class.
 * @throws {TypeError} If a tensor has another shape or dtype than the encoder tells.
 * @throws {RangeError} If one is missing, or k is not the one of the config.
 */
export async function dictionaryLearningForm(
  file: TensorFile,
  json: unknown,
  configFile: string,
): Promise<SaeForm> {
  const config = json === undefined
    ? undefined
    : checkJson(Config, json, configFile);
  const className = config?.trainer.dict_class ?? classOf(file);
  const place = placeOf(config);
  const form: SaeForm = {
    ...linearForm(file, className, configMetadata(config, place)),
    ...(typeof place === "object" && place),
  };
  const perFeature = (name: string) => storedVector(file, name, form.d_sae);
  switch (className) {
    case "AutoEncoderNew":
      return form;
    case "JumpReluAutoEncoder":
      return {
        ...form,
        metadata: { ...form.metadata, architecture: "jumprelu" },
        threshold: perFeature("threshold"),
      };
    case "AutoEncoder": {
      const centered = foldInputBias(form, form.b_dec);
      return scaleFeatures(centered, unlessOne(decoderNorms(form)));
    }
    case "GatedAutoEncoder":
      return foldInputBias(
        foldGates(form, {
          r_mag: perFeature("r_mag"),
          b_mag: form.b_enc,
          b_gate: perFeature("gate_bias"),
        }),
        form.b_dec,
      );
    default:
      return await topKForm(
        file,
        foldInputBias(form, form.b_dec),
        className,
        config?.trainer.k ?? undefined,
      );
  }
}

/** The linear maps of a class, its biases not folded yet. */
function linearForm(
  file: TensorFile,
  className: ClassName,
  metadata: SaeMetadata,
): SaeForm {
  // Those of torch.nn.Linear are the transposes of the others.
  const isLinear = !/^(JumpRelu|Matryoshka)/.test(className);
  const [encoder, byEncoder] = isLinear
    ? ["encoder.weight", "[d_sae, d_model]"] as const
    : ["W_enc", "[d_model, d_sae]"] as const;
  const [decoder, byDecoder] = isLinear
    ? ["decoder.weight", "[d_model, d_sae]"] as const
    : ["W_dec", "[d_sae, d_model]"] as const;
  const b_enc = className === "GatedAutoEncoder"
    ? "mag_bias"
    : isLinear
    ? "encoder.bias"
    : "b_enc";
  const { d_model, d_sae } = matrixSizes(file, encoder, byEncoder);
  return {
    layout: "dictionary-learning",
    d_model,
    d_sae,
    metadata,
    W_enc: featureRows(file, encoder, d_sae, d_model, byEncoder),
    b_enc: storedVector(file, b_enc, d_sae),
    W_dec: featureRows(file, decoder, d_sae, d_model, byDecoder),
    b_dec: storedVector(file, CLASSES[className].bias, d_model),
  };
}

/**
 * Those that were trained with the k largest. A threshold below 0 is one that training had not begun to measure:
 * then those of a batch rank every vector by itself, as a batch of one does.
 */
async function topKForm(
  file: TensorFile,
  form: SaeForm,
  className: ClassName,
  configK: number | undefined,
): Promise<SaeForm> {
  const { d_sae, metadata } = form;
  const threshold = file.tensors.has("threshold")
    ? await scalar(file, "threshold")
    : -1;
  if (className !== "AutoEncoderTopK" && threshold >= 0) {
    return {
      ...form,
      metadata: { ...metadata, architecture: "jumprelu" },
      threshold: constantVector(d_sae, threshold),
    };
  }
  const k = file.tensors.has("k") ? await scalar(file, "k") : configK ?? 0;
  if (!Number.isInteger(k) || k < 1 || k > d_sae || k !== (configK ?? k)) {
    throw new RangeError(
      `Cannot read "${file.name}": expected k from 1 to ${d_sae}${
        configK === undefined ? "" : `, and ${configK} as its config has it`
      }: got ${k}: check that the files of this folder belong together`,
    );
  }
  return {
    ...form,
    metadata: {
      ...metadata,
      architecture: "topk",
      k,
      ...(threshold > 0 && { inferenceThreshold: threshold }),
    },
  };
}

/** The class that alone has the tensors of a file. */
function classOf(file: TensorFile): ClassName {
  const has = (name: string): boolean => file.tensors.has(name);
  if (has("group_sizes")) return "MatryoshkaBatchTopKSAE";
  if (has("W_enc")) return "JumpReluAutoEncoder";
  if (has("decoder_bias")) return "GatedAutoEncoder";
  if (has("decoder.bias")) return "AutoEncoderNew";
  if (has("bias")) return "AutoEncoder";
  throw new Error(
    `Cannot open the SAE "${file.name}": expected config.json beside it, as the classes of dictionary_learning with the k largest have the same tensors: got none: put it there`,
  );
}

/** As `load_dictionary` does, which leaves decoders alone whose norms are all next to 1. */
function unlessOne(norms: LazyVector): LazyVector {
  return async () => {
    const values = await norms();
    const isOne = values.every((norm) => Math.abs(norm - 1) <= 1e-8 + 1e-5);
    return isOne ? values.map(() => 1) : values;
  };
}

/** What a config tells of any class. */
function configMetadata(
  config: Config | undefined,
  place: ReturnType<typeof placeOf>,
): SaeMetadata {
  const { lm_name } = config?.trainer ?? {};
  const { ctx_len } = config?.buffer ?? {};
  return {
    architecture: "relu",
    inputScale: 1,
    ...(typeof place === "string" && { hookPoint: place }),
    ...(lm_name ? { modelName: lm_name } : {}),
    ...(ctx_len ? { contextLength: ctx_len } : {}),
  };
}

/** Where it reads: its buffers hook the block of a layer, unless another submodule or its input is named. */
function placeOf(
  config: Config | undefined,
): HookPoint | { elsewhere: string } | undefined {
  const { layer, submodule_name } = config?.trainer ?? {};
  const io = config?.buffer?.io ?? "out";
  const name = submodule_name || `layers.${layer}`;
  const hookPoint = hookPointNamed(name);
  if (io === "out" && hookPoint) return hookPoint;
  if (io === "out" && !submodule_name) return undefined;
  return { elsewhere: `${name} (${io})` };
}
