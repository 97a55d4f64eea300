/// <reference lib="esnext.disposable" preserve="true" />
/** The public API of xpatch, the same in Node and in browsers. */

// Activation stores

// Activation stores

// Activation stores
export {
  type ActivationBatch,
  type ActivationStore,
  openActivations,
  type ReadActivationsOptions,
  readActivations,
} from "./activations/activation-store.ts";
export { type CollectOptions, type CollectProgress, collectActivations } from "./activations/collect.ts";
export type { Manifest, PlainPositions, StoredShard, StoredSite } from "./activations/manifest.ts";
export type { StoredPrompt } from "./activations/stored-prompt.ts";
// Patching
export {
  type LatentAttribution,
  type LatentValue,
  latentAttribution,
  type TopLatentOptions,
  topLatents,
} from "./analysis/autoencoders/latent-attribution.ts";
export {
  ablateLatents,
  addToLatents,
  type LatentEditOptions,
  type Latents,
  scaleLatents,
  setLatents,
} from "./analysis/autoencoders/latent-edits.ts";
export type {
  LatentActivity,
  LatentExample,
  LatentExamples,
} from "./analysis/autoencoders/latent-examples.ts";
export {
  type LoadSaeOptions,
  loadSparseAutoencoder,
} from "./analysis/autoencoders/load-sparse-autoencoder.ts";
export type { SaeArchitecture, SaeConfig, SaeNormalisation } from "./analysis/autoencoders/sae-config.ts";
export type { SaeWeights, SparseAutoencoder } from "./analysis/autoencoders/sparse-autoencoder.ts";
export {
  type ActivationSource,
  type TopActivationOptions,
  topActivations,
} from "./analysis/autoencoders/top-activations.ts";
export {
  type AttentionMap,
  type AttentionMapOptions,
  attentionMaps,
  type ImagePatches,
  imagePatches,
  type RolloutOptions,
  rolloutMaps,
} from "./analysis/heads/attention-map.ts";
export {
  type CorruptedPrompt,
  type FunctionVectorOptions,
  functionVector,
} from "./analysis/heads/function-vector.ts";
export type { FunctionVector, HeadEffect } from "./analysis/heads/function-vector-result.ts";
export { headOutputs } from "./analysis/heads/head-outputs.ts";
export { type HeadPatternOptions, headPattern, headPatterns } from "./analysis/heads/head-pattern.ts";
export type { AttendedToken, HeadPattern, HeadPatternFields } from "./analysis/heads/head-pattern-result.ts";
export { HeadRanking, type RankedHead, rankHeads } from "./analysis/heads/rank-heads.ts";
export { rollout } from "./analysis/heads/rollout.ts";
export { type FitLensOptions, fitTunedLens } from "./analysis/lens/fit-tuned-lens.ts";
export type { LensCells, LensToken } from "./analysis/lens/lens-cells.ts";
export { type LogitAttributionOptions, logitAttribution } from "./analysis/lens/logit-attribution.ts";
export type { LogitAttribution, LogitComponent } from "./analysis/lens/logit-attribution-result.ts";
export { decodeStream, type LensCell, type LensOptions, logitLens } from "./analysis/lens/logit-lens.ts";
export {
  decodeTunedLens,
  encodeTunedLens,
  TunedLens,
  type TunedLensOrigin,
} from "./analysis/lens/tuned-lens.ts";
export { type AttributionMapOptions, attributionMap } from "./analysis/maps/attribution-map.ts";
export {
  type ComparedCell,
  type CompareMapsOptions,
  compareMaps,
  type MapComparison,
  type MapComparisonFields,
} from "./analysis/maps/compare-maps.ts";
export {
  type KnockoutOptions,
  type KnockoutSweepOptions,
  knockout,
  knockoutSweep,
} from "./analysis/maps/knockout.ts";
export type { KnockoutLayer, KnockoutSweep, KnockoutSweepFields } from "./analysis/maps/knockout-result.ts";
export { type PatchMapOptions, patchMap } from "./analysis/maps/patch-map.ts";
export type {
  PatchCell,
  PatchColumn,
  PatchMap,
  PatchMapFields,
  PatchMethod,
} from "./analysis/maps/patch-map-result.ts";
export type { PairOptions, PatchDirection } from "./analysis/maps/patch-pairs.ts";
export type { PathEffect, PathEffectFields } from "./analysis/maps/path-effect.ts";
export { type PathEnd, type PathPatchOptions, pathPatch } from "./analysis/maps/path-patch.ts";
export {
  type ControlOptions,
  ControlVector,
  controlVectorOf,
  decodeControlVector,
  encodeControlVector,
} from "./analysis/vectors/control-vector.ts";
export {
  type FoundSubspace,
  findSubspace,
  type InterchangePair,
  type SubspaceOptions,
} from "./analysis/vectors/find-subspace.ts";
export { chooseLayer, type LayerChoice } from "./analysis/vectors/layer-choice.ts";
export { neighbourPlane, type Plane, principalPlane } from "./analysis/vectors/plane.ts";
export type { ScoredSweep } from "./analysis/vectors/score-sweep.ts";
export { cosineSimilarity } from "./analysis/vectors/similarity.ts";
export { type Steering, type SteeringOptions, trainSteering } from "./analysis/vectors/steering.ts";
export { Subspace } from "./analysis/vectors/subspace.ts";
export {
  type PatchEachOptions,
  type PatchedTokens,
  patchEach,
  patchOf,
  type SweepOptions,
  type SweepResult,
  sweepLayers,
} from "./analysis/vectors/sweep-layers.ts";
export { relatedTasks, type SwitchedTask } from "./analysis/vectors/switch.ts";
export {
  decodeTaskVectors,
  type ExtractOptions,
  encodeTaskVectors,
  extractActivations,
  extractTaskVectors,
  parseTaskVectors,
  StoredTaskVectors,
  type TaskVectorOrigin,
  TaskVectors,
} from "./analysis/vectors/task-vectors.ts";
export {
  type ShownItem,
  type TestOptions,
  Transfer,
  type TransferOptions,
  type TransferTest,
} from "./analysis/vectors/transfer.ts";
export * from "./errors.ts";
// Figures
export { type AttentionFigureOptions, attentionFigure } from "./figures/attention-figure.ts";
export type {
  BarsChart,
  Chart,
  HeatChart,
  LinesChart,
  Reference,
  ScatterChart,
  Value as ChartValue,
} from "./figures/chart.ts";
export { chartFigure } from "./figures/chart-figure.ts";
export { type Curve, type CurveOptions, type CurvePoint, curveFigure } from "./figures/curve-figure.ts";
export type { Figure } from "./figures/figure.ts";
export { type HeatData, type HeatOptions, heatFigure } from "./figures/heat-figure.ts";
export { type LatentFigureOptions, latentFigure } from "./figures/latent-figure.ts";
export { type LensFigureOptions, lensFigure } from "./figures/lens-figure.ts";
export { show } from "./figures/show.ts";
export { type TokenFigureOptions, tokenFigure } from "./figures/token-figure.ts";
export { grad, type ValueAndGradients, valueAndGradients } from "./gradient/grad.ts";
export { Tape, type TapeOptions, type Watched } from "./gradient/tape.ts";
export type { Drawable } from "./images/canvas.ts";
// Pictures
export { type ImageSource, type LoadImageOptions, loadImage } from "./images/files/load.ts";
export { encodePng } from "./images/files/png-write.ts";
export type { RgbImage } from "./images/files/rgb.ts";
export { modelView, type PixelValues, preprocess, type Tiling } from "./images/preprocess.ts";
export { type ProcessorSettings, readProcessorConfig } from "./images/processors/processor-config.ts";
export { type Rectangle, type ResizeFilter, resize } from "./images/resize.ts";
export type { TileGrid } from "./images/tile-grid.ts";
export { attention } from "./kernels/attention/attention.ts";
export type {
  AttentionBias,
  AttentionInputs,
  AttentionOptions,
  KeysAndValues,
} from "./kernels/attention/attention-call.ts";
export { attentionMix, attentionPattern, attentionScores } from "./kernels/attention/attention-pattern.ts";
export { causalSegments, fullSegments } from "./kernels/attention/attention-segments.ts";
export {
  type RopeOptions,
  type RopeScaling,
  type RopeTableOptions,
  rope,
  ropeTable,
} from "./kernels/attention/rope.ts";
// Kernels
export { type ActivationKind, activation, gatedActivation } from "./kernels/elementwise/activation.ts";
export {
  equal,
  greater,
  greaterEqual,
  less,
  lessEqual,
  notEqual,
  select,
} from "./kernels/elementwise/compare.ts";
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
} from "./kernels/elementwise/elementwise.ts";
export type { Operand } from "./kernels/elementwise/map.ts";
export { randomNormal, randomUniform } from "./kernels/elementwise/random.ts";
export { type LinearOptions, linear } from "./kernels/matmul/linear.ts";
export { matmul } from "./kernels/matmul/matmul.ts";
export { patchEmbedding } from "./kernels/matmul/patch-embedding.ts";
export { concat, stack } from "./kernels/movement/concat.ts";
export { cast, contiguous, copy } from "./kernels/movement/copy.ts";
export { gatherRows, takeAlongAxis } from "./kernels/movement/gather.ts";
export {
  addRows,
  copyRowsInto,
  interpolateRows,
  keepDirectionRows,
  projectOutRows,
  type RowOptions,
  scaleRows,
  setRows,
  zeroRows,
} from "./kernels/movement/row-edits.ts";
export type { Range, RowSelection } from "./kernels/movement/row-selection.ts";
export { scatterRowsInto } from "./kernels/movement/scatter.ts";
export { type ScatterAddOptions, scatterAdd } from "./kernels/movement/scatter-add.ts";
export { type LayerNormOptions, layerNorm } from "./kernels/reduction/layer-norm.ts";
export {
  type Axes,
  argmax,
  argmin,
  max,
  mean,
  min,
  norm,
  product,
  type ReduceOptions,
  sum,
  variance,
} from "./kernels/reduction/reduce.ts";
export { type RmsNormOptions, rmsNorm } from "./kernels/reduction/rms-norm.ts";
export { logSoftmax, softmax } from "./kernels/reduction/softmax.ts";
export { topK } from "./kernels/reduction/top-k.ts";
export { Checkpoint, type CheckpointParts } from "./model/checkpoint/checkpoint.ts";
export type { IntermediateLayers } from "./model/checkpoint/config/canvas-tower-config.ts";
export type { CrossConfig, DecoderConfig, EncoderSetup } from "./model/checkpoint/config/decoder-config.ts";
export type { NaflexConfig } from "./model/checkpoint/config/naflex-config.ts";
export type { RopeConfig } from "./model/checkpoint/config/rope-config.ts";
export type { VisionConfig } from "./model/checkpoint/config/vision-config.ts";
export type {
  ImageLayout,
  ImageRows,
  Picture,
  QFormerConfig,
  ResamplerConfig,
  TowerConfig,
  VisionSetup,
} from "./model/checkpoint/config/vision-setup.ts";
export type { TensorEntry } from "./model/checkpoint/entries/tensor-entry.ts";
export { convertGguf } from "./model/checkpoint/gguf/convert-gguf.ts";
export { type GgufEntry, GgufFile } from "./model/checkpoint/gguf/gguf.ts";
export type { GgufArray, GgufValue } from "./model/checkpoint/gguf/gguf-header.ts";
export type { LoraAdapter, StoredUpdate } from "./model/checkpoint/lora/adapter.ts";
export type { AdapterConfig } from "./model/checkpoint/lora/adapter-config.ts";
export { type CheckpointOptions, openCheckpoint } from "./model/checkpoint/open-checkpoint.ts";
export { SafetensorsFile } from "./model/checkpoint/safetensors/safetensors.ts";
export { type TensorToWrite, writeSafetensors } from "./model/checkpoint/safetensors/safetensors-writer.ts";
export type { TensorFile } from "./model/checkpoint/safetensors/tensor-files.ts";
export { type Folder, memoryFolder, subfolder } from "./model/checkpoint/source/folder.ts";
export type { FolderSink } from "./model/checkpoint/source/folder-sink.ts";
export type { DownloadProgress } from "./model/checkpoint/source/hub-folder.ts";
export { blobSource, memorySource } from "./model/checkpoint/source/sources.ts";
export { urlSource } from "./model/checkpoint/source/url-source.ts";
export type { Quantise, QuantiseFormat, QuantiseTo } from "./model/checkpoint/weights/quantise.ts";
export type { LoadProgress } from "./model/checkpoint/weights/upload.ts";
export type { DualEncoderConfig, Embedded } from "./model/dual-encoder.ts";
export { EXPORT_DTYPES, type ExportDType, type ExportOptions, exportModel } from "./model/export/export.ts";
export type { LanguageModel, ModelOutline } from "./model/language-model.ts";
// Models
export type { WeightName } from "./model/layers/named-weights.ts";
export type { TextTowerConfig } from "./model/layers/towers/text-tower.ts";
export type { LoadOptions, ReadOptions } from "./model/load-options.ts";
export type { PromptOptions } from "./model/prompt/build-prompt.ts";
export type { ChatContent, ChatMessage, ChatOptions } from "./model/prompt/chat-template.ts";
export type { ImageRules, PromptPart } from "./model/prompt/image-rules.ts";
export {
  hashPrompts,
  type ImageSpan,
  type PatchGrid,
  type Prompt,
  patchColumn,
  patchPositions,
  patchRow,
  type Span,
} from "./model/prompt/prompt.ts";
export type { PromptImage } from "./model/prompt/prompt-image.ts";
export type { Spelling } from "./model/prompt/token-spelling.ts";
export { createTokenizer, type TextPrefix, type Tokenizer } from "./model/prompt/tokenizer.ts";
export type { Place as ModelPlace } from "./model/walk/place.ts";
export type { RowMap, RowSpan } from "./model/walk/row-map.ts";
export { mostProbableTokens, type SamplingOptions } from "./model/walk/sampling.ts";
export type { AttentionMask, SiteEvent, SiteFilter, Walk } from "./model/walk/site-events.ts";
export { type SiteInfo, siteInfo, siteNames } from "./model/walk/site-info.ts";
export type { CrossRows, OuterShape, SiteMap, StackSites } from "./model/walk/site-shapes.ts";
export {
  type CrossSite,
  LAYER_SITES,
  type LayerSite,
  type OuterSite,
  parseSite,
  type SiteAddress,
  type SiteLayout,
  type SiteName,
  type SitePrefix,
  type StackName,
} from "./model/walk/sites.ts";
export { answerEach, firstLine } from "./patching/answer.ts";
export type { ActivationCache, CacheOptions } from "./patching/cache-all.ts";
export {
  contrastiveLoss,
  type DualGradientOptions,
  type DualGradients,
  type DualMetric,
  type DualRun,
  type EncodeOptions,
  type EncodeResult,
  loadDualEncoder,
  type PatchableDualEncoder,
} from "./patching/dual-encoder.ts";
export {
  addVector,
  type Edit,
  type EditOperation,
  type EditOptions,
  type EditValue,
  interpolate,
  meanAblate,
  projectOnto,
  projectOut,
  type RowTransform,
  scale,
  set,
  transform,
  zero,
} from "./patching/edit.ts";
export type { Generated, GenerateOptions, UnfiredEdit } from "./patching/generate.ts";
export type { BatchGradients, GradientFields, GradientOptions, Gradients } from "./patching/gradients.ts";
export {
  klDivergence,
  logitDifference,
  logProbability,
  type Metric,
  type NamedMetric,
  probability,
} from "./patching/metric.ts";
export { loadModel, type PatchableModel } from "./patching/model.ts";
export type { OneToken } from "./patching/one-token.ts";
export type { OnePosition, Positions } from "./patching/positions.ts";
export { type Reached, reach } from "./patching/reached.ts";
export { type Recording, type RecordOptions, record } from "./patching/recording.ts";
export { type ResumeOptions, type ResumeResult, resume, type Variant } from "./patching/resume.ts";
export type { BatchResult, RunOptions, RunResult, TapList, TapLists, TapValues } from "./patching/run.ts";
export { type NextTokenLoss, nextTokenLoss, type RunMetric } from "./patching/run-metric.ts";
export type { Setting } from "./patching/setting.ts";
export type { SiteFilterLike, SitePattern, SitesOf } from "./patching/site-patterns.ts";
export { gradient, type Part as SitePart, type Tap, type TapGroup, type Taps, tap } from "./patching/tap.ts";
export type { AdapterChoice, ByteSource } from "./platform/platform.ts";
export { type ChromeTrace, chromeTrace, type TraceEvent } from "./profile/chrome-trace.ts";
export { type Limits, measureLimits } from "./profile/limits.ts";
export {
  type Profile,
  type ProfileOptions,
  type ProfilePhase,
  type ProfileWorkOptions,
  profile,
  profileWork,
  type TracedDispatch,
} from "./profile/profile.ts";
export type { KernelRow, ProfileRow } from "./profile/rows.ts";
export { isCorrect, isCorrectTokens, isWholeAnswer, type ScoreOptions } from "./tasks/correct.ts";
export {
  type DatasetColumns,
  type DatasetFile,
  type DatasetItem,
  datasetItems,
  splitOfPath,
} from "./tasks/dataset.ts";
export {
  type Asker,
  answeredPrompt,
  atLastExample,
  byText,
  type DrawOptions,
  drawExamples,
  drawItems,
  type Example,
  exampleOf,
  fewShotPrompt,
  instructedPrompt,
  PAPER_TEMPLATE,
  type Question,
  SPACED_TEMPLATE,
  upToLastExample,
} from "./tasks/few-shot.ts";
export { type LoadPicturesOptions, loadPictures, type Pictures } from "./tasks/pictures.ts";
export { parsePublishedTask, type TaskText } from "./tasks/published-task.ts";
export {
  majorityBaseline,
  type Score,
  type ScoredAnswers,
  scoreAnswers,
  scoreTokens,
} from "./tasks/score.ts";
export { SHIPPED_TASKS } from "./tasks/shipped-tasks.ts";
export {
  askerIn,
  itemsIn,
  type Modality,
  poolOf,
  promptInContext,
  type Specification,
  type SpecificationKind,
  type SpecifyOptions,
  specify,
  type TaskSourceOptions,
  taskSource,
  type VectorSource,
  vectorSource,
} from "./tasks/specification.ts";
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
} from "./tasks/task.ts";
export { parseTaskCsv } from "./tasks/task-csv.ts";
export type { PoolStatistics } from "./tensor/buffer-pool.ts";
// Tensors
export { Device, type DeviceCounters } from "./tensor/device.ts";
export type { DeviceInfo, Feature, KernelStyle } from "./tensor/device-info.ts";
export type { DType, HostArray } from "./tensor/dtype.ts";
export type { KernelChoice, KernelChoices } from "./tensor/kernel-choices.ts";
export { type DeviceOptions, openDevice } from "./tensor/open-device.ts";
export type { Arithmetic, Operation, OperationRecord } from "./tensor/operation.ts";
export type { Operand as TensorOrPacked } from "./tensor/packed/packed.ts";
export type { ProfiledOperation, TimingMethod } from "./tensor/profiler.ts";
export type { Scope } from "./tensor/scope.ts";
export type { Shape } from "./tensor/shape.ts";
export type { Tensor } from "./tensor/tensor.ts";
// Training
export { AdamW, type AdamWOptions, type OptimizerState } from "./training/adamw.ts";
export { encodeTraining, restoreTraining, type TrainingSettings } from "./training/checkpoint.ts";
export { shuffledBatch } from "./training/data-order.ts";
export { Lora, type LoraOptions } from "./training/lora.ts";
export { type SaveAdapterOptions, saveAdapter } from "./training/save-adapter.ts";
export { type CosineOptions, cosineSchedule } from "./training/schedule.ts";
export {
  type AuxiliaryLoss,
  Trainer,
  type TrainerOptions,
  type TrainingStep,
  weightTensors,
} from "./training/trainer.ts";
