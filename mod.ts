/**
 * Open Concept Steering: look inside OLMo-2 with sparse autoencoders, and turn
 * a concept up, on any GPU that WebGPU reaches.
 *
 * ```
 * text → tokens → Olmo2.forward → resid_post[l] → SaeTrainer → sae_weights.safetensors
 *      → featureActivations, findByExample → SteeringBank → generate
 * ```
 *
 * @example A steered reply
 * ```ts ignore
 * using gpu = await Gpu.open();
 * const { config, checkpoint, tokenizer } = await openModelFolder(directory("models/tiny-olmo2"));
 * using model = await Olmo2.load(gpu, checkpoint, config);
 * const sae = await SaeFile.open(directory("models/tiny-olmo2-sae"));
 * using steering = await SteeringBank.load(gpu, sae, [[parseIntervention("758=2x")]], { layer: 3 });
 * const chat = tokenizer.applyChatTemplate([{ role: "user", content: "Tell me a story." }], { addGenerationPrompt: true });
 * const prompt = tokenizer.encode(chat, { addSpecial: false });
 * const [reply] = await generate(model, [{ prompt, sampling: GREEDY, steeringSet: 0 }], { maxNewTokens: 32, steering });
 * console.log(tokenizer.decode(reply!));
 * ```
 *
 * @module
 */
export { Gpu, GpuLostError, type GpuOptions } from "./gpu/device.ts";
export { Gate, type GatedLaunch } from "./gpu/gate.ts";
export { adapterName, type LimitName, listAdapters } from "./gpu/adapter.ts";
export {
  type Dtype,
  type ElementDtype,
  type QuantizedDtype,
} from "./gpu/dtype.ts";
export { type Launch } from "./gpu/kernel.ts";
export { type Compiled } from "./gpu/pipeline.ts";
export { type KernelTime, Profiler } from "./gpu/profile.ts";
export { Recorder, type UniformPage, UniformPages } from "./gpu/record.ts";
export { type RowWindow, Tensor } from "./gpu/tensor.ts";
export { Tuning, type TuningMode, type TuningStore } from "./gpu/tuning.ts";
export { directory, fileSource } from "./core/files.ts";
export {
  blobSource,
  type Folder,
  memoryFolder,
  memorySource,
  type Source,
  urlFolder,
  urlSource,
} from "./core/source.ts";
export {
  type Checkpoint,
  openCheckpoint,
  Safetensors,
  type StoredDtype,
  type TensorInfo,
  type TensorToWrite,
} from "./core/safetensors.ts";
export { type ModelFolder, openModelFolder } from "./core/model_folder.ts";
export { type Olmo2Config, readModelConfig } from "./core/olmo2_config.ts";
export {
  type ForwardOptions,
  Olmo2,
  type ResidHook,
  type TokenTensors,
  Workspace,
} from "./core/olmo2.ts";
export { type AttentionPlan } from "./kernels/attention.ts";
export { type LoadOptions } from "./core/weight_loader.ts";
export { KvCache, type KvCacheOptions, PAGE_TOKENS } from "./core/kv_cache.ts";
export {
  type SequencePart,
  type TokenBatch,
  tokenBatch,
  wholeSequences,
} from "./core/token_batch.ts";
export {
  type ChatMessage,
  type DecodeOptions,
  type StreamDecoder,
  Tokenizer,
} from "./core/tokenizer.ts";
export {
  defaultHookPoint,
  type HookPoint,
  parseHookPoint,
} from "./core/hook_point.ts";
export {
  type SaeArchitecture,
  SaeFile,
  type SaeLayout,
  type SaeMetadata,
  type SaeWeights,
} from "./core/sae_file.ts";
export {
  SAE_TARGETS,
  type SaeTarget,
  type SaeToWrite,
  type WeightDtype,
  type WriteFile,
  writeSae,
  type WriteSaeOptions,
  type WrittenMetadata,
} from "./core/sae_write.ts";
export { type ControlVector, controlVectorGguf } from "./core/gguf.ts";
export {
  type FeatureWindow,
  Sae,
  type SaeRows,
  type SaeTensors,
} from "./core/sae.ts";
export { SaeEncoder, type TakeActivations } from "./core/sae_encoder.ts";
export {
  type ScoreOptions,
  scoreSequences,
  type ScoringPass,
} from "./core/score.ts";
export {
  type DocumentWindow,
  scoreDocuments,
  type ScoreDocumentsOptions,
} from "./core/score_documents.ts";
export { type ScoreWindow, scoreWindows } from "./core/score_windows.ts";
export { SaeSplice } from "./core/sae_splice.ts";
export {
  type FullTrainerConfig,
  SaeTrainer,
  type StepOptions,
  type TrainerBatch,
  type TrainerConfig,
} from "./train/trainer.ts";
export {
  ARCHITECTURES,
  parseRecipe,
  type SaeRecipe,
  type TrainedArchitecture,
} from "./train/recipe.ts";
export { initSae, type SaeParams } from "./train/init.ts";
export {
  scheduleAt,
  type ScheduleOptions,
  type StepValues,
} from "./train/schedule.ts";
export { type StepMetrics } from "./train/metrics.ts";
export { evaluateResiduals, type SaeEvaluation } from "./train/evaluate.ts";
export {
  type ActivationOptions,
  featureActivations,
  type SequenceActivations,
  type SparseActivations,
} from "./steer/activations.ts";
export {
  type LogitHistogram,
  type LogitLens,
  logitLens,
  type LogitLensOptions,
  type TokenLogit,
} from "./steer/logit_lens.ts";
export {
  generate,
  type GenerateOptions,
  type GenerateRequest,
  GREEDY,
  type Sampling,
} from "./steer/generate.ts";
export { Decoder, type DecoderOptions } from "./steer/decoder.ts";
export {
  type NewTokens,
  Reply,
  type ReplyEnd,
  type ReplyRequest,
} from "./steer/reply.ts";
export { ReplyText } from "./steer/reply_text.ts";
export {
  formatIntervention,
  type Intervention,
  parseIntervention,
  type ParseInterventionOptions,
  type SteeredToken,
  type SteerEncoding,
  SteeringBank,
  type SteeringBankOptions,
  type SteeringSource,
  type SteerMode,
  type WatchedFeature,
} from "./steer/interventions.ts";
export { type SteeredPositions } from "./steer/generate_request.ts";
