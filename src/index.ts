/// <reference lib="esnext.disposable" preserve="true" />
/** The public API of xpatch, the same in Node and in browsers. */

// Figures
export { attentionFigure } from "./figures/attention-figure.ts";
export type { Figure } from "./figures/figure.ts";
export { lensFigure } from "./figures/lens-figure.ts";
export { toPage } from "./figures/page.ts";
export { toPixels } from "./figures/pixels.ts";
export { toSvg } from "./figures/svg.ts";
// Pictures
export { type ImageSource, loadImage } from "./images/load.ts";
export { encodePng } from "./images/png.ts";
export { modelView, type PixelValues, preprocess } from "./images/preprocess.ts";
export { readProcessorConfig } from "./images/processor-config.ts";
export { resize } from "./images/resize.ts";
export type { RgbImage } from "./images/rgb.ts";
// Kernels
export { type ActivationKind, activation, gatedActivation } from "./kernels/activation.ts";
export { attention } from "./kernels/attention.ts";
export { attentionMix, attentionPattern, attentionScores } from "./kernels/attention-pattern.ts";
export { causalSegments, fullSegments } from "./kernels/attention-segments.ts";
export { equal, greater, greaterEqual, less, lessEqual, notEqual, select } from "./kernels/compare.ts";
export { concat, stack } from "./kernels/concat.ts";
export { cast, contiguous, copy } from "./kernels/copy.ts";
export {
  abs,
  add,
  ceil,
  cos,
  div,
  exp,
  floor,
  log,
  maximum,
  minimum,
  mul,
  neg,
  pow,
  round,
  rsqrt,
  sigmoid,
  sin,
  sqrt,
  square,
  sub,
  tanh,
} from "./kernels/elementwise.ts";
export { gatherRows, takeAlongAxis } from "./kernels/gather.ts";
export { layerNorm } from "./kernels/layer-norm.ts";
export { linear } from "./kernels/linear.ts";
export { matmul } from "./kernels/matmul.ts";
export { patchEmbedding } from "./kernels/patch-embedding.ts";
export { randomNormal, randomUniform } from "./kernels/random.ts";
export { argmax, argmin, max, mean, min, norm, product, sum, variance } from "./kernels/reduce.ts";
export { rmsNorm } from "./kernels/rms-norm.ts";
export { type RopeScaling, rope, ropeTable } from "./kernels/rope.ts";
export {
  addRows,
  copyRowsInto,
  interpolateRows,
  keepDirectionRows,
  projectOutRows,
  scaleRows,
  setRows,
  zeroRows,
} from "./kernels/rows.ts";
export { scatterRowsInto } from "./kernels/scatter.ts";
export { logSoftmax, softmax } from "./kernels/softmax.ts";
export { topK } from "./kernels/top-k.ts";
// Models
export type { PromptPart } from "./model/build-prompt.ts";
export type { ChatMessage } from "./model/chat-template.ts";
export { Checkpoint } from "./model/checkpoint.ts";
export { convertGguf } from "./model/convert-gguf.ts";
export type { DecoderConfig } from "./model/decoder-config.ts";
export { EXPORT_DTYPES, type ExportDType, type ExportOptions, exportModel } from "./model/export.ts";
export { type Folder, memoryFolder, subfolder } from "./model/folder.ts";
export type { FolderSink } from "./model/folder-sink.ts";
export { GgufFile } from "./model/gguf.ts";
export type { LoadOptions } from "./model/language-model.ts";
export { type CheckpointOptions, openCheckpoint } from "./model/open-checkpoint.ts";
export { hashPrompts, type Prompt, patchColumn, patchRow, type Span } from "./model/prompt.ts";
export { SafetensorsFile } from "./model/safetensors.ts";
export { type TensorToWrite, writeSafetensors } from "./model/safetensors-writer.ts";
export type { SamplingOptions } from "./model/sampling.ts";
export { type SiteInfo, type SiteMap, siteInfo, siteNames } from "./model/site-shapes.ts";
export { LAYER_SITES, type LayerSite, parseSite, type SiteEvent, type SiteName } from "./model/sites.ts";
export { blobSource, memorySource } from "./model/sources.ts";
export { createTokenizer, type Tokenizer } from "./model/tokenizer.ts";
export { urlSource } from "./model/url-source.ts";
export type { PromptImage } from "./model/vision-setup.ts";
export { answerEach, firstLine } from "./patching/answer.ts";
// Patching
export {
  type AttentionMap,
  type AttentionMapOptions,
  attentionMaps,
  imagePatches,
  rolloutMaps,
} from "./patching/attention-map.ts";
export { isCorrect, isCorrectTokens, isWholeAnswer } from "./patching/correct.ts";
export { loadDualEncoder, type PatchableDualEncoder } from "./patching/dual-encoder.ts";
export {
  addVector,
  type Edit,
  interpolate,
  meanAblate,
  projectOnto,
  projectOut,
  scale,
  set,
  zero,
} from "./patching/edit.ts";
export {
  type Asker,
  atLastExample,
  byText,
  drawExamples,
  drawItems,
  type Example,
  exampleOf,
  fewShotPrompt,
  instructedPrompt,
  PAPER_TEMPLATE,
  type Question,
  SPACED_TEMPLATE,
} from "./patching/few-shot.ts";
export type { Generated, GenerateOptions, UnfiredEdit } from "./patching/generate.ts";
export { chooseLayer, type LayerChoice } from "./patching/layer-choice.ts";
export { decodeStream, type LensCell, logitLens } from "./patching/logit-lens.ts";
export { loadModel, type PatchableModel } from "./patching/model.ts";
export { type LoadPicturesOptions, loadPictures, type Pictures } from "./patching/pictures.ts";
export type { Positions } from "./patching/positions.ts";
export { parsePublishedTask } from "./patching/published-task.ts";
export { type Recording, record } from "./patching/recording.ts";
export { type ResumeResult, resume, type Variant } from "./patching/resume.ts";
export { rollout } from "./patching/rollout.ts";
export type { BatchResult, RunOptions, RunResult } from "./patching/run.ts";
export {
  majorityBaseline,
  type Score,
  type ScoredAnswers,
  scoreAnswers,
  scoreTokens,
} from "./patching/score.ts";
export { cosineSimilarity } from "./patching/similarity.ts";
export {
  askerIn,
  itemsIn,
  type Modality,
  poolOf,
  promptInContext,
  type Specification,
  type SpecificationKind,
  specify,
  taskSource,
  type VectorSource,
  vectorSource,
} from "./patching/specification.ts";
export { type PatchedTokens, patchEach, patchOf, type SweepResult, sweepLayers } from "./patching/sweep.ts";
export { relatedTasks, type SwitchedTask } from "./patching/switch.ts";
export { type Tap, tap } from "./patching/tap.ts";
export {
  itemsOf,
  type PicturedItem,
  parseTask,
  picturedItemsOf,
  SPLITS,
  type Split,
  splitOf,
  type Task,
  type TaskItem,
} from "./patching/task.ts";
export { parseTaskCsv } from "./patching/task-csv.ts";
export {
  decodeTaskVectors,
  encodeTaskVectors,
  extractActivations,
  extractTaskVectors,
  TaskVectors,
} from "./patching/task-vectors.ts";
export { Transfer, type TransferOptions, type TransferTest } from "./patching/transfer.ts";
export type { ByteSource } from "./platform/platform.ts";
// Tensors
export {
  Device,
  type DeviceInfo,
  type DeviceOptions,
  type Feature,
  type KernelStyle,
  openDevice,
} from "./tensor/device.ts";
export type { DType, HostArray } from "./tensor/dtype.ts";
export * from "./tensor/errors.ts";
export type { OperationRecord } from "./tensor/operation.ts";
export type { Scope } from "./tensor/scope.ts";
export type { Shape } from "./tensor/shape.ts";
export type { Tensor } from "./tensor/tensor.ts";
