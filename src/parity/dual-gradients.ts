import { valueAndGradients } from "../gradient/grad.ts";
import type { PixelValues } from "../images/preprocess.ts";
import { unitLength } from "../model/dual-encoder.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { siteNames } from "../model/walk/site-info.ts";
import type { SiteName } from "../model/walk/sites.ts";
import { contrastiveLoss, type PatchableDualEncoder } from "../patching/dual-encoder.ts";
import type { Scope } from "../tensor/scope.ts";
import type { Check } from "./checks.ts";
import { GradientFile } from "./gradients.ts";

/** What a folder's gradients of two towers are of: its first texts and pictures. */
export interface DualInputs {
  readonly prompts: readonly Prompt[];
  /** For each text, the columns of its tokens, and how many there are with the padding. */
  readonly columns: readonly (readonly number[])[];
  readonly extent: number;
  readonly images: readonly PixelValues[];
}

/** Compares gradients of the contrastive loss of the first texts and as many pictures, where the folder has them. */
export async function checkDualGradients(
  path: string,
  model: PatchableDualEncoder,
  { prompts, columns, extent, images }: DualInputs,
): Promise<{ checks: Check[]; unread: readonly string[] }> {
  const file = await GradientFile.open(path);
  if (!file) return { checks: [], unread: [] };
  await using _ = file.goldens;
  const known: ReadonlySet<string> = new Set(siteNames(model.sites));
  const wanted = file
    .names("loss/")
    .map((name) => ({ name, site: name.replace(/^text\./, "") as SiteName }))
    .filter(({ site }) => known.has(site));
  const weights = file.names("loss/").filter((name) => model.loaded.parameters.has(name));
  const scope = model.device.openScope();
  try {
    const inputs = { texts: prompts, images: images.slice(0, prompts.length) };
    const found = scope.enter(() =>
      model.gradients(inputs, contrastiveLoss, { of: wanted.map(({ site }) => site), weights, pixels: true }),
    );
    const checks = [file.check("loss", await found.metric.read(), await file.read("loss"), 1)];
    for (const { name, site } of wanted) {
      const values = (await model.device.read(found.gradients[site]!)) as Float32Array[];
      const expected = await file.read(`loss/${name}`);
      if (site.startsWith("vision.")) {
        checks.push(
          file.check(
            `loss/${name}`,
            values.flatMap((part) => [...part]),
            expected,
          ),
        );
        continue;
      }
      const width = expected.length / prompts.length / extent;
      // Padding behind a text has no gradient.
      const padded = new Float32Array(expected.length);
      for (const [text, own] of columns.entries()) {
        for (const [row, column] of own.entries()) {
          const from = values[text]!.subarray(row * width, (row + 1) * width);
          padded.set(from, (text * extent + column) * width);
        }
      }
      checks.push(file.check(`loss/${name}`, padded, expected));
    }
    if (file.names("loss/").includes("pixel_values")) {
      const values = (await found.pixels!.read()) as Float32Array;
      checks.push(file.check("loss/pixel_values", values, await file.read("loss/pixel_values")));
    }
    checks.push(...(await checkProjections(file, model, inputs, scope)));
    for (const name of weights) {
      const values = (await found.weights[name]!.read()) as Float32Array;
      checks.push(file.check(`loss/${name}`, file.rowsOf(name, values), await file.read(`loss/${name}`)));
    }
    return { checks, unread: file.unread };
  } finally {
    scope.dispose();
  }
}

/** Gradients at what the towers make, before it is brought to unit length. */
async function checkProjections(
  file: GradientFile,
  model: PatchableDualEncoder,
  { texts, images }: { texts: readonly Prompt[]; images: readonly PixelValues[] },
  scope: Scope,
): Promise<Check[]> {
  const [text, image] = scope.enter(() => [model.texts(texts).pooled, model.images(images).pooled]);
  const loss = () => contrastiveLoss({ similarity: model.similarity(unitLength(image!), unitLength(text!)) });
  const { gradients } = scope.enter(() => valueAndGradients(loss, [text!, image!]));
  const checks: Check[] = [];
  for (const [i, name] of ["text.projection", "vision.projection"].entries()) {
    if (!file.names("loss/").includes(name)) continue;
    checks.push(file.check(`loss/${name}`, await gradients[i]!.read(), await file.read(`loss/${name}`)));
  }
  return checks;
}
