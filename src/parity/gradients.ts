import { access } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { placesInBlocks } from "../images/patch-rows.ts";
import { ConfigReader } from "../model/checkpoint/json/config-reader.ts";
import { imagePlaces } from "../model/prompt/image-places.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { picturesOf } from "../model/prompt/prompt-image.ts";
import { siteNames } from "../model/walk/site-info.ts";
import type { SiteName } from "../model/walk/sites.ts";
import { logitDifference } from "../patching/metric.ts";
import type { PatchableModel } from "../patching/model.ts";
import { nextTokenLoss, type RunMetric } from "../patching/run-metric.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type CaseFolder, readJson } from "./case-folder.ts";
import { type Check, checkTensor } from "./checks.ts";
import { GoldenFile } from "./golden-file.ts";
import { joinedPatches } from "./patch-goldens.ts";
import { OMITTED } from "./thinned.ts";
import { checkTraining } from "./training.ts";
import { featureSite, resamplerNames, rowsBehind } from "./vision.ts";

/** Prompts that a folder's gradients are of. */
export interface GradientInputs {
  /** What the logit difference is of. */
  readonly prompt: Prompt;
  /** What the loss is of, given the ids that an encoder-decoder is to answer. */
  lossPrompt(labels: readonly number[]): Prompt;
}

/** What a folder has of gradients: a description and the goldens. */
export class GradientFile {
  readonly json: ConfigReader;
  readonly goldens: GoldenFile;
  readonly #aliases: ReadonlyMap<string, string>;
  readonly #relative: number;

  constructor(json: ConfigReader, goldens: GoldenFile) {
    this.json = json;
    this.goldens = goldens;
    this.#aliases = new Map(Object.entries(json.object("same_as") as Record<string, string>));
    this.#relative = json.section("tolerance").number("relative_to_largest");
  }

  /** What a folder has; undefined where it has none. */
  static async open(path: string): Promise<GradientFile | undefined> {
    const where = join(path, "gradients.json");
    const found = await access(where).then(
      () => true,
      () => false,
    );
    if (!found) return undefined;
    const json = new ConfigReader(await readJson(where), where);
    return new GradientFile(json, await GoldenFile.open(join(path, "gradients.safetensors")));
  }

  /** Goldens that nothing was compared with. */
  get unread(): string[] {
    return this.goldens.unread.map((name) => `gradient ${name}`);
  }

  /** Names that begin with `prefix`, those whose tensor is another's among them; without the prefix. */
  names(prefix: string): string[] {
    const all = [...this.goldens.names, ...this.#aliases.keys()];
    return all.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
  }

  async read(name: string): Promise<Float32Array> {
    const { values } = await this.goldens.read(this.#aliases.get(name) ?? name);
    return values as Float32Array;
  }

  /** Rows of a weight that the goldens have, of all. */
  rowsOf(name: string, values: Float32Array): Float32Array {
    const { ids, of } = this.json.object("rows") as unknown as { ids: number[]; of: string[] };
    if (!of.includes(name)) return values;
    const width = this.#goldenWidth(name);
    return Float32Array.from(ids.flatMap((id) => [...values.subarray(id * width, (id + 1) * width)]));
  }

  #goldenWidth(name: string): number {
    return this.goldens.shape(`loss/${name}`)[1]!;
  }

  /** What Adam makes of rounding in gradients near zero is a full step: compared as a whole. */
  checkNorm(name: string, found: readonly ArrayLike<number>[], expected: Float32Array): Check {
    const norms = this.json.section("tolerance").object("relative_norm") as Record<string, number>;
    const kind = Object.keys(norms).find((prefix) => name.startsWith(prefix))!;
    const check = checkTensor(name, found, [expected], { atol: Number.POSITIVE_INFINITY, rtol: 0 });
    if (check.kind !== "tensor") return check;
    return {
      ...check,
      tolerance: { atol: 0, rtol: norms[kind]! },
      passed: check.relativeNorm <= norms[kind]!,
    };
  }

  check(name: string, found: ArrayLike<number>, expected: Float32Array, least = 0): Check {
    const largest = expected.reduce((most, x) => (x === OMITTED ? most : Math.max(most, Math.abs(x))), least);
    return checkTensor(`gradient ${name}`, [found], [expected], { atol: this.#relative * largest, rtol: 0 });
  }
}

/**
 * Compares gradients of the first case with what PyTorch computed, where the folder has them (gradients.json,
 * gradients.safetensors): of a logit difference by site, and of a loss by weight.
 */
export async function checkGradients(
  { path, goldens }: CaseFolder,
  model: PatchableModel,
  inputs: GradientInputs,
): Promise<{ checks: Check[]; unread: readonly string[] }> {
  const file = await GradientFile.open(path);
  if (!file) return { checks: [], unread: [] };
  await using _ = file.goldens;
  const checks = [
    ...(await checkSites(file, goldens, model, inputs.prompt)),
    ...(await checkWeights(file, goldens, model, inputs)),
    ...(await checkTraining(file, model, inputs.prompt)),
  ];
  return { checks, unread: file.unread };
}

/** A golden of the case's own file that says the same once more. */
async function checkAgain(
  file: GradientFile,
  goldens: GoldenFile,
  name: string,
  found: ArrayLike<number>,
): Promise<Check[]> {
  const key = `case0/grad.${name}`;
  if (!goldens.has(key)) return [];
  const { values } = await goldens.read(key);
  return [file.check(key, found, values as Float32Array)];
}

async function checkSites(
  file: GradientFile,
  goldens: GoldenFile,
  model: PatchableModel,
  prompt: Prompt,
): Promise<Check[]> {
  const spec = file.json.section("logit_diff");
  const known: ReadonlySet<string> = new Set(siteNames(model.sites));
  const wanted = file
    .names("logit_diff/")
    .map((name) => ({ name, site: siteOf(name, model) }))
    .filter(({ site }) => known.has(site));
  const metric: RunMetric = logitDifference(spec.count("a", undefined, 0), spec.count("b", undefined, 0));
  if (spec.count("position", undefined, 0) !== model.sequenceOf(prompt).last) {
    throw new CheckpointError("gradients.json: expected the logit difference of the last position");
  }
  const sites = wanted.map(({ site }) => site as SiteName);
  const scope = model.device.openScope();
  try {
    const pixels = file.names("logit_diff/").includes("pixel_values");
    const found = scope.enter(() => model.gradients(prompt, metric, { of: sites, pixels }));
    const { gradients, metric: value } = found;
    const tensors = sites.map((site) => gradients[site]!);
    const values = (await model.device.read(tensors)) as Float32Array[];
    const measured = await value.read();
    const checks = [
      file.check("logit_diff", measured, await file.read("logit_diff"), 1),
      ...(await checkAgain(file, goldens, "logit_diff", measured)),
    ];
    for (const [i, { name }] of wanted.entries()) {
      const expected = await file.read(`logit_diff/${name}`);
      checks.push(...(await checkAgain(file, goldens, `logit_diff/${name}`, values[i]!)));
      checks.push(file.check(`logit_diff/${name}`, inTheirOrder(values[i]!, name, prompt, model), expected));
    }
    if (pixels) {
      const parts = (await model.device.read(found.pixels)) as Float32Array[];
      const own = inTheirPicture(parts, file.goldens.shape("logit_diff/pixel_values"), prompt, model);
      checks.push(file.check("logit_diff/pixel_values", own, await file.read("logit_diff/pixel_values")));
    }
    return checks;
  } finally {
    scope.dispose();
  }
}

/** Gradients of pixel values as the golden has them: of patches where that has patches, else of pictures, padded. */
function inTheirPicture(
  parts: readonly Float32Array[],
  shape: Shape,
  prompt: Prompt,
  { config: { vision } }: PatchableModel,
): Float32Array {
  const [picture] = picturesOf(prompt);
  const [grid, more] = vision!.layout(picture!).patchGrids ?? [];
  if (!grid) return Float32Array.from(parts.flatMap((part) => [...part]));
  if (more || parts.length > 1) {
    throw new CheckpointError("gradients.json: expected a case of one picture, not split");
  }
  const [height, width] = shape.slice(-2) as [number, number];
  const sizes = { size: vision!.tower.patchSize, frames: 1 };
  return joinedPatches(parts[0]!, placesInBlocks(grid, 1), sizes, { height, width });
}

/** What xpatch calls a golden. */
function siteOf(name: string, model: PatchableModel): string {
  const { vision } = model.config;
  const ofResampler = vision ? resamplerNames(vision) : {};
  if (Object.hasOwn(ofResampler, name)) return ofResampler[name]!;
  if (vision && name === "projector.out") return vision.tiled ? "tile_features" : "projector";
  if (vision && name === "projector.in") return featureSite(vision);
  return name
    .replace(/^decoder\./, "")
    .replace(/^cross_attn_out\./, "xattn_out.")
    .replace(/^resid_cross\./, "xresid_mid.")
    .replace(/^cross_z\./, "xattn_z.");
}

/** Our values as the golden has them: tokens before pictures are merged in, rows in the order of the merger. */
function inTheirOrder(
  values: Float32Array,
  name: string,
  prompt: Prompt,
  { config }: PatchableModel,
): Float32Array {
  const { vision } = config;
  if (!vision) return values;
  if (name === "embed") {
    const own = values.slice();
    const width = own.length / prompt.length;
    // What the embedding of a placeholder is changes nothing: features take its place.
    for (const place of imagePlaces(prompt, vision)) own.fill(0, place * width, (place + 1) * width);
    return own;
  }
  const layout = vision.layout(picturesOf(prompt)[0]!);
  if (name === "projector.out" && layout.order) {
    const width = values.length / layout.tokens;
    const rows = rowsBehind(layout.tokens, layout.order);
    const theirs = new Float32Array(values.length);
    rows.forEach((row, i) => {
      theirs.set(values.subarray(i * width, (i + 1) * width), row * width);
    });
    return theirs;
  }
  // The projector does not read the class token.
  if (name === "projector.in" && layout.towerRows === layout.tokens + 1) {
    return values.subarray(values.length / layout.towerRows);
  }
  return values;
}

async function checkWeights(
  file: GradientFile,
  goldens: GoldenFile,
  model: PatchableModel,
  { lossPrompt }: GradientInputs,
): Promise<Check[]> {
  const labels = (file.json.section("loss").value("labels") as number[]).filter((label) => label !== -100);
  const prompt = lossPrompt(labels);
  const weights = file.names("loss/").filter((name) => model.parameterNames.includes(name));
  const scope = model.device.openScope();
  try {
    const result = scope.enter(() => model.gradients(prompt, nextTokenLoss(), { weights }));
    const tensors: Tensor[] = weights.map((name) => result.weights[name]!);
    const values = (await model.device.read(tensors)) as Float32Array[];
    const measured = await result.metric.read();
    const checks = [
      file.check("loss", measured, await file.read("loss"), 1),
      ...(await checkAgain(file, goldens, "loss", measured)),
    ];
    for (const [i, name] of weights.entries()) {
      checks.push(
        file.check(`loss/${name}`, file.rowsOf(name, values[i]!), await file.read(`loss/${name}`)),
        ...(await checkAgain(file, goldens, `loss/${name}`, values[i]!)),
      );
    }
    return checks;
  } finally {
    scope.dispose();
  }
}
