import type { Prompt } from "../model/prompt.ts";
import type { SiteName } from "../model/sites.ts";
import type { PatchableDualEncoder } from "../patching/dual-encoder.ts";
import { tap } from "../patching/tap.ts";
import { CheckpointError } from "../tensor/errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  checkActivations,
  type GoldenActivation,
  readActivations,
  type Values,
} from "./parity-activations.ts";
import { type Check, checkEqual, checkTensor } from "./parity-checks.ts";
import type { CaseFolder, GoldenCase } from "./parity-folder.ts";
import { imageFiles, readPixels } from "./parity-vision.ts";

/** Whether a case compares images with texts, for a dual encoder. */
export function isDual({ items }: GoldenCase): boolean {
  return items.every((item) => Array.isArray(item["texts"]) && Array.isArray(item["images"]));
}

/** Runs the cases of CLIP or SigLIP: both towers' activations, pooled states, embeddings, and the similarity logits. */
export async function checkDualCases(folder: CaseFolder, model: PatchableDualEncoder): Promise<Check[]> {
  const checks: Check[] = [];
  for (const golden of folder.cases) {
    const item = golden.items[0]!;
    const texts = (item["texts"] as unknown[]).map(String);
    const { values: images, checks: pixels } = await readPixels(
      folder,
      golden.name,
      imageFiles(item["images"]),
      model.processor,
    );
    const { prompts, columns, checks: ids } = await readTexts(folder, golden.name, texts, model);
    const { layers, kind } = model.config.vision;
    // CLIP's last state is that of the last block; SigLIP's has been normed.
    const lastState: SiteName = kind === "clip" ? `vision.resid_post.${layers - 1}` : "vision.post_norm";
    const rows = images.map(() => Array.from({ length: model.sites.vision!.rows }, (_, i) => i));
    const ofVision = await readActivations(folder.goldens, `${golden.name}/`, rows, {
      sites: model.sites,
      tower: "vision",
      names: { "vision.last_hidden_state": lastState },
    });
    const ofText = await readActivations(folder.goldens, `${golden.name}/text.`, columns, {
      sites: model.sites,
      tower: "text",
      names: { last_hidden_state: "final_norm" },
    });
    const scope = model.device.openScope();
    try {
      const vision = scope.enter(() => model.images(images, { taps: tapsOf(ofVision) }));
      const text = scope.enter(() => model.texts(prompts, { taps: tapsOf(ofText) }));
      const perImage = scope.enter(() => model.similarity(vision.embeds, text.embeds));
      checks.push(
        ...pixels,
        ...ids,
        ...checkActivations(ofVision, await valuesOf(ofVision, vision), folder.tolerance),
        ...checkActivations(ofText, await valuesOf(ofText, text), folder.tolerance),
        ...(await checkOutputs(folder, golden.name, {
          "vision.pooled": vision.pooled,
          image_embeds: vision.embeds,
          "text.pooled": text.pooled,
          text_embeds: text.embeds,
          logits_per_image: perImage,
          logits_per_text: perImage.transpose(),
        })),
      );
    } finally {
      scope.dispose();
    }
  }
  return checks;
}

/** The goldens' ids without what their mask leaves out, as prompts, and checks of what we would have made of the texts. */
async function readTexts(
  { goldens }: CaseFolder,
  name: string,
  texts: readonly string[],
  model: PatchableDualEncoder,
): Promise<{ prompts: Prompt[]; columns: number[][]; checks: Check[] }> {
  const ids = await goldens.read(`${name}/in.input_ids`, 2);
  const [count, length] = ids.shape as [number, number];
  if (count !== texts.length) {
    throw new CheckpointError(
      `${name}: expected ids of ${texts.length} texts, found [${ids.shape.join(", ")}]`,
    );
  }
  const maskName = `${name}/in.attention_mask`;
  const mask = goldens.has(maskName) ? (await goldens.read(maskName, 2)).values : undefined;
  const columns = texts.map((_, t) =>
    Array.from({ length }, (_, column) => column).filter((column) => !mask || mask[t * length + column]),
  );
  const theirs = columns.map((own, t) => own.map((column) => ids.values[t * length + column]!));
  const prompts = texts.map((text) => model.prompt(text));
  const ours = prompts.map((prompt) => prompt.ids);
  return { prompts, columns, checks: [checkEqual(`${name}/in.input_ids, from the texts`, ours, theirs)] };
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
