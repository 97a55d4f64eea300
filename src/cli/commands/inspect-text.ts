import type { RopeConfig } from "../../model/checkpoint/config/rope-config.ts";
import { type Shape, showShape, sizeOf } from "../../tensor/shape.ts";
import { quote, showBytes, showCount, table } from "../terminal/layout.ts";
import type {
  ArchitectureReport,
  InspectReport,
  LoraReport,
  MemoryReport,
  SiteReport,
  TensorReport,
  TokenizerReport,
} from "./inspect.ts";

/** Longest metadata value that is shown in full. */
const LONGEST_VALUE = 80;

/** An inspection as text for a terminal; `everyTensor` lists them one by one even for a model. */
export function formatInspection(report: InspectReport, { everyTensor = false } = {}): string {
  const { architecture, tokenizer, memory, tensors } = report;
  const sections = [heading(report)];
  if (architecture) {
    sections.push(
      "problem" in architecture ? `not to be run: ${architecture.problem}` : diagram(architecture),
    );
  }
  const isLoneFile = !architecture;
  if (isLoneFile) sections.push(metadataTable(report.files[0]!.metadata));
  sections.push(everyTensor || isLoneFile ? tensorTable(tensors) : groupedTensorTable(tensors));
  if (report.adapters.length > 0) sections.push(loraTable(report.adapters));
  if (tokenizer) sections.push("problem" in tokenizer ? `tokenizer: ${tokenizer.problem}` : about(tokenizer));
  if (memory) {
    const unknown =
      "problem" in memory ? `memory on this machine's adapter: not known, ${memory.problem}` : undefined;
    sections.push(unknown ?? memoryTable(memory as MemoryReport));
  }
  return sections.filter((text) => text !== "").join("\n\n");
}

function heading({ checkpoint, files, parameters, bytes, dtypes, tensors }: InspectReport): string {
  const stored = dtypes.map(({ dtype, bytes: part }) =>
    dtypes.length > 1 ? `${dtype} ${showBytes(part)}` : dtype,
  );
  const where = files.length === 1 ? "1 file" : `${files.length} files`;
  const facts = [
    `${showCount(parameters)} parameters in ${tensors.length} tensors`,
    stored.join(", "),
    `${showBytes(bytes)} in ${where}`,
  ];
  return `${checkpoint}\n${facts.join(" · ")}`;
}

/** The forward pass from top to bottom, as the places where it can be read and changed. */
function diagram({ family, config, sites }: ArchitectureReport): string {
  const { layers, width, heads, kvHeads, headDim, context } = config;
  const { rope, localRope, activation, tied, vision, encoder, cross } = config;
  const shared = kvHeads === heads ? "" : ` on ${kvHeads} of keys and values`;
  const facts = [
    `${family}: ${layers} layers, ${width} wide, ${heads} heads of ${headDim}${shared}`,
    ...(Number.isFinite(context) ? [`context ${context}${windowOf(config)}`] : []),
    rope
      ? `RoPE ${showRope(rope, headDim)}${localRope ? `, with the window ${showRope(localRope, headDim)}` : ""}`
      : learnedPositions(context),
    activation,
  ];
  const lines = [facts.join(" · ")];
  if (encoder) lines.push(`encoder of the prompt: ${encoder.layers} layers; the rest is the decoder`);
  if (vision) {
    const { kind, imageSize, patchSize } = vision.tower;
    const square = imageSize === undefined ? "pictures of any size" : `${imageSize} × ${imageSize} pixels`;
    const byTile = vision.resampler && `${vision.resampler.latents} positions a tile`;
    const count = vision.fixed ? `${vision.fixed.tokens} positions` : (byTile ?? "positions by its size");
    const positions = vision.embeds === false ? "" : ` · ${count} for each ${vision.imageToken}`;
    const picture = `${vision.tiled ? "tiles of " : ""}${square} in patches of ${patchSize} × ${patchSize}`;
    lines.push(`${vision.tower.layers === 0 ? "no tower" : `${kind} tower`}: ${picture}${positions}`);
    if (vision.resampler) {
      const { layers, latents, heads, headDim } = vision.resampler;
      lines.push(`resampler: ${layers} layers, ${heads} heads of ${headDim}, ${latents} rows an image`);
    }
  }
  if (vision?.qformer) {
    const { layers, queries, width, crossLayers, text } = vision.qformer;
    const reads = text ? ", and the prompt" : "";
    lines.push(
      `Q-Former: ${layers} layers, ${width} wide, ${queries} queries an image; reads it in layers ${crossLayers.join(", ")}${reads}`,
    );
  }
  if (cross) {
    const place = cross.mlpWidth === undefined ? "in" : "in front of";
    lines.push(`cross-attention: ${place} layers ${cross.layers.join(", ")}`);
  }
  const rows: string[][] = [];
  for (const run of runs(sites, ({ layers, only }) => `${layers} ${only}`)) {
    const named = runs(run, showSite).map((alike) => [
      alike.map(({ site }) => site).join(", "),
      showSite(alike[0]!),
    ]);
    const { layers: count, only } = run[0]!;
    if (count === undefined) rows.push(...named);
    else {
      const which = only?.join(", ") ?? `0 … ${count - 1}`;
      rows.push([`┌ layer N = ${which}`], ...named.map(([n, shape]) => [`│ ${n}`, shape!]), ["└"]);
    }
  }
  if (tied) rows.at(-1)!.push("by the embedding's transpose");
  return `${lines.join("\n")}\n\n${table(rows)}`;
}

function windowOf({ layers, window, windowedLayers }: ArchitectureReport["config"]): string {
  if (window === undefined) return "";
  const some = windowedLayers && ` in ${windowedLayers.filter(Boolean).length} of ${layers} layers`;
  return `, window ${window}${some ?? ""}`;
}

function showRope({ theta, scaling, beyond, rotaryDim }: RopeConfig, headDim: number): string {
  const part = rotaryDim === undefined || rotaryDim === headDim ? "" : ` on ${rotaryDim} of ${headDim}`;
  const border = beyond ? `, other factors beyond ${beyond.tokens} tokens` : "";
  return `θ ${theta}${scaling ? ` (${scaling.type}${border})` : ""}${part}`;
}

function learnedPositions(context: number): string {
  return Number.isFinite(context) ? "learned positions" : "scores biased by distance, for any length";
}

/** Cuts a list where neighbours differ in `key`. */
function runs<T>(list: readonly T[], key: (item: T) => unknown): T[][] {
  const found: T[][] = [];
  for (const item of list) {
    const last = found.at(-1);
    if (last && key(last[0]!) === key(item)) last.push(item);
    else found.push([item]);
  }
  return found;
}

function showSite({ shape, heads }: SiteReport): string {
  const sizes = shape.map((size) => `${size}`);
  if (heads !== undefined) sizes[sizes.length - 1] = `${heads} × ${Number(shape.at(-1)) / heads}`;
  return `[${sizes.join(", ")}]`;
}

function metadataTable(metadata: Readonly<Record<string, unknown>>): string {
  return table(
    Object.entries(metadata).map(([key, value]) => {
      const text = typeof value === "string" ? value.replace(/\s+/g, " ") : String(value);
      return [key, text.length > LONGEST_VALUE ? `${text.slice(0, LONGEST_VALUE)}…` : text];
    }),
  );
}

function tensorTable(tensors: readonly TensorReport[]): string {
  const rows = tensors.map(({ name, stored, shape, bytes }) => [
    name,
    stored,
    showShape(shape),
    showBytes(bytes),
  ]);
  return table([["tensor", "dtype", "shape", "size"], ...rows], [3]);
}

/** Tensors that differ only in a number in their name, such as the layer, on one line. */
function groupedTensorTable(tensors: readonly TensorReport[]): string {
  const groups = new Map<
    string,
    { name: string; stored: string; shape: Shape; count: number; bytes: number }
  >();
  for (const { name, stored, shape, bytes } of tensors) {
    const pattern = name.replace(/(?<=\.)\d+(?=\.)/g, "N");
    const key = `${pattern} ${stored} ${showShape(shape)}`;
    const group = groups.get(key) ?? { name: pattern, stored, shape, count: 0, bytes: 0 };
    groups.set(key, { ...group, count: group.count + 1, bytes: group.bytes + bytes });
  }
  const rows = [...groups.values()].map(({ name, stored, shape, count, bytes }) => [
    name,
    stored,
    showShape(shape),
    count === 1 ? "" : `× ${count}`,
    showCount(count * sizeOf(shape)),
    showBytes(bytes),
  ]);
  return table([["tensor", "dtype", "shape", "", "parameters", "size"], ...rows], [3, 4, 5]);
}

function loraTable(adapters: readonly LoraReport[]): string {
  const rows = adapters.map(({ name, layers, ranks, replaced, parameters, bytes }) => [
    name,
    `${layers} linear layers${replaced.length > 0 ? `, ${replaced.length} whole tensors` : ""}`,
    ranks.join(", "),
    showCount(parameters),
    showBytes(bytes),
  ]);
  return table([["LoRA on top", "", "rank", "parameters", "size"], ...rows], [3, 4]);
}

function about({
  size,
  specialTokens,
  prefix,
  prefixBehindImages,
  suffix,
  chatTemplate,
}: TokenizerReport): string {
  const names = Object.entries(specialTokens).map(
    ([name, token]) => `${name.replace(/_token$/, "")} ${token}`,
  );
  const list = (tokens: readonly string[]) => (tokens.length > 0 ? tokens.map(quote).join(" ") : "nothing");
  const behind = suffix.length > 0 ? `, ${list(suffix)} behind it` : "";
  return table([
    ["tokenizer", `${size} tokens`],
    ["  special", names.join(", ") || "none named"],
    [
      "  adds",
      `${list(prefix)} in front of a prompt${prefixBehindImages ? " (behind its images)" : ""}${behind}`,
    ],
    ["  chat template", chatTemplate ? "yes" : "none"],
  ]);
}

function memoryTable(memory: MemoryReport): string {
  const { adapter, weightBytes, cacheBytesPerToken, cacheBytesPerImage } = memory;
  const { maxBufferBytes, maxBindingBytes, tooLarge, windowed } = memory;
  const rows = [
    ["adapter", adapter],
    ["  weights", showBytes(weightBytes)],
  ];
  if (cacheBytesPerToken !== undefined) {
    const ofImages = cacheBytesPerImage === undefined ? "" : `, ${showBytes(cacheBytesPerImage)} an image`;
    rows.push(["  keys and values", `${showBytes(cacheBytesPerToken)} a token${ofImages}`]);
  }
  rows.push(
    [
      "  largest buffer",
      `${showBytes(maxBufferBytes)}${tooLarge.length > 0 ? `, too small for ${tooLarge.join(", ")}` : ""}`,
    ],
    [
      "  largest binding",
      `${showBytes(maxBindingBytes)}${windowed.length > 0 ? `; in several windows: ${windowed.join(", ")}` : ""}`,
    ],
  );
  return table(rows);
}
