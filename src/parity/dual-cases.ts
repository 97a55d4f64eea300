import { CheckpointError } from "../errors.ts";
import { promptFromIds } from "../model/prompt/build-prompt.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import type { SiteName } from "../model/walk/sites.ts";
import type { PatchableDualEncoder } from "../patching/dual-encoder.ts";
import { tap } from "../patching/tap.ts";
import type { Scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkActivations, type GoldenActivation, readActivations, type Values } from "./activations.ts";
import type { CaseFolder, GoldenCase } from "./case-folder.ts";
import { type Check, checkEqual, checkTensor } from "./checks.ts";
import type { DualInputs } from "./dual-gradients.ts";
import { imageFiles, readPixels } from "./pixels.ts";

/** Whether a case compares images with texts, for a dual encoder. */
export function isDual({ items }: GoldenCase): boolean {
  return items.every((item) => Array.isArray(item["texts"]) && Array.isArray(item["images"]));
}

/** Runs the cases of CLIP or SigLIP: both towers' activations, pooled states, embeddings, and the similarity logits. */
export async function checkDualCases(
  folder: CaseFolder,
  model: PatchableDualEncoder,
): Promise<{ checks: Check[]; gradients: DualInputs | undefined }> {
  const checks: Check[] = [];
  let gradients: DualInputs | undefined;
  for (const { name, items } of folder.cases) {
    const item = items[0]!;
    const scope = model.device.openScope();
    try {
      const text = await checkTexts(folder, name, (item["texts"] as unknown[]).map(String), model, scope);
      checks.push(...text.checks);
      const files = imageFiles(item["images"]);
      // Texts may be compared by themselves.
      if (files.length === 0) continue;
      const vision = await checkImages(folder, name, files, model, scope);
      gradients ??= { ...text.inputs, images: vision.images };
      const perImage = scope.enter(() => model.similarity(vision.embeds, text.embeds));
      const outputs = { logits_per_image: perImage, logits_per_text: perImage.transpose() };
      checks.push(...vision.checks, ...(await checkOutputs(folder, name, outputs)));
    } finally {
      scope.dispose();
    }
  }
  return { checks, gradients };
}

interface Checked {
  readonly checks: readonly Check[];
  readonly embeds: Tensor;
}

async function checkTexts(
  folder: CaseFolder,
  name: string,
  texts: readonly string[],
  model: PatchableDualEncoder,
  scope: Scope,
): Promise<Checked & { readonly inputs: Omit<DualInputs, "images"> }> {
  const { prompts, columns, extent, check } = await readTexts(folder, name, texts, model);
  const activations = await readActivations(folder.goldens, `${name}/text.`, columns, {
    sites: model.sites,
    stack: "text",
    extent,
    names: { last_hidden_state: "final_norm" },
  });
  const found = scope.enter(() => model.texts(prompts, { taps: tapsOf(activations) }));
  const { pooled, embeds } = found;
  const outputs = await checkOutputs(folder, name, { "text.pooled": pooled, text_embeds: embeds });
  const values = await valuesOf(activations, found);
  return {
    checks: [check, ...checkActivations(activations, values, folder.tolerance), ...outputs],
    embeds,
    inputs: { prompts, columns, extent },
  };
}

async function checkImages(
  folder: CaseFolder,
  name: string,
  files: readonly string[],
  model: PatchableDualEncoder,
  scope: Scope,
): Promise<Checked & Pick<DualInputs, "images">> {
  const { values: images, checks: pixels } = await readPixels(folder, name, files, model.processor);
  const { layers, kind } = model.config.vision;
  // CLIP's last state is that of the last block; SigLIP's has been normed.
  const lastState: SiteName = kind === "clip" ? `vision.resid_post.${layers - 1}` : "vision.post_norm";
  const layouts = images.map((image) => model.layout(image));
  const rows = layouts.map(({ towerRows }) => Array.from({ length: towerRows }, (_, i) => i));
  // The goldens of pictures of any size have padding behind their patches.
  const mask = `${name}/in.pixel_attention_mask`;
  const extent = folder.goldens.has(mask) ? folder.goldens.shape(mask)[1] : undefined;
  const activations = await readActivations(folder.goldens, `${name}/`, rows, {
    ...(extent !== undefined && { extent }),
    sites: model.sites,
    stack: "vision",
    names: { "vision.last_hidden_state": lastState },
  });
  const found = scope.enter(() => model.images(images, { taps: tapsOf(activations) }));
  const { pooled, embeds } = found;
  const shapes = `${name}/in.spatial_shapes`;
  if (folder.goldens.has(shapes)) {
    const theirs = [...(await folder.goldens.read(shapes, 2)).values];
    pixels.push(
      checkEqual(
        shapes,
        layouts.flatMap(({ grid }) => [grid!.rows, grid!.columns]),
        theirs,
      ),
    );
  }
  const outputs = await checkOutputs(folder, name, { "vision.pooled": pooled, image_embeds: embeds });
  const values = await valuesOf(activations, found);
  return {
    checks: [...pixels, ...checkActivations(activations, values, folder.tolerance), ...outputs],
    embeds,
    images,
  };
}

interface TextInputs {
  readonly prompts: Prompt[];
  /** For each prompt, the columns of its tokens, and how many there are with the padding. */
  readonly columns: number[][];
  readonly extent: number;
  /** Of the ids that we would have made of the texts. */
  readonly check: Check;
}

/**
 * The goldens' ids as prompts, without what their mask leaves out. CLIP's causal texts do not see the padding behind
 * them. SigLIP's do: it is part of the text, and its last position is what is pooled, so there can be no mask.
 */
async function readTexts(
  { goldens }: CaseFolder,
  name: string,
  texts: readonly string[],
  model: PatchableDualEncoder,
): Promise<TextInputs> {
  const ids = await goldens.read(`${name}/in.input_ids`, 2);
  const [count, extent] = ids.shape as [number, number];
  if (count !== texts.length) {
    throw new CheckpointError(
      `${name}: expected ids of ${texts.length} texts, found [${ids.shape.join(", ")}]`,
    );
  }
  const maskName = `${name}/in.attention_mask`;
  const mask = goldens.has(maskName) ? await goldens.read(maskName, 2) : undefined;
  if (mask && mask.shape.join() !== ids.shape.join()) {
    throw new CheckpointError(`${maskName}: expected [${ids.shape}] like the ids, found [${mask.shape}]`);
  }
  const all = Array.from({ length: extent }, (_, column) => column);
  const columns = texts.map((_, t) => all.filter((column) => !mask || mask.values[t * extent + column]));
  for (const own of columns) {
    if (own.length === 0 || own.at(-1) !== own.length - 1) {
      throw new CheckpointError(`${maskName}: expected padding behind the texts only`);
    }
    if (model.config.kind !== "clip" && own.length < extent) {
      throw new CheckpointError(
        `${maskName}: expected no position masked: SigLIP reads its padding, and pools the last position`,
      );
    }
  }
  const theirs = columns.map((own, t) => own.map((column) => ids.values[t * extent + column]!));
  const ours = texts.map((text, t) => paddedTo(theirs[t]!.length, model.prompt(text).ids, model));
  return {
    prompts: theirs.map((own) => promptFromIds(model.tokenizer, own)),
    columns,
    extent,
    check: checkEqual(`${name}/in.input_ids, from the texts`, ours, theirs),
  };
}

/** Ids with padding behind them, or with padding taken away, as far as that goes. */
function paddedTo(length: number, ids: readonly number[], model: PatchableDualEncoder): number[] {
  const padded = [...ids];
  while (padded.length < length) padded.push(model.padId);
  while (padded.length > length && padded.at(-1) === model.padId) padded.pop();
  return padded;
}

function tapsOf(goldens: readonly GoldenActivation[]) {
  return Object.fromEntries(goldens.map(({ site }, a) => [`${a}`, tap(site)]));
}

async function valuesOf(
  goldens: readonly GoldenActivation[],
  tapped: Readonly<Record<string, unknown>>,
): Promise<Values> {
  const values: Float32Array[][] = [];
  for (const a of goldens.keys()) {
    const tensors = tapped[`${a}`] as Tensor<"f32">[];
    values.push(await Promise.all(tensors.map((tensor) => tensor.read())));
  }
  return values;
}

async function checkOutputs(
  { goldens, tolerance }: CaseFolder,
  name: string,
  outputs: Readonly<Record<string, Tensor>>,
): Promise<Check[]> {
  const checks: Check[] = [];
  for (const [output, tensor] of Object.entries(outputs)) {
    const key = `${name}/${output}`;
    if (!goldens.has(key)) continue;
    const { values } = await goldens.read(key, 2);
    checks.push(checkTensor(key, [await tensor.read()], [values], tolerance));
  }
  return checks;
}
