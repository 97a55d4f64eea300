import { expect } from "vitest";
import type { PixelValues } from "../../src/images/preprocess.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import { siteInfo } from "../../src/model/walk/site-info.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { addVector, type Edit } from "../../src/patching/edit.ts";
import { logitDifference } from "../../src/patching/metric.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { randomArray } from "./compare.ts";
import { readAll } from "./model.ts";

/** The smallest slope that is compared: one that is 0 would show nothing. */
const LEAST = 1e-3;

/** Expects a gradient along a direction to be the central difference of what is a step up and a step down. */
export function expectSlope(up: number, down: number, slope: number, step: number, label: string): void {
  expect(Math.abs(slope), label).toBeGreaterThan(LEAST);
  const found = (up - down) / (2 * step);
  expect(Math.abs(found - slope), `${label}: ${found} for ${slope}`).toBeLessThan(
    2e-2 * Math.abs(slope) + 2e-3,
  );
}

interface Slopes {
  readonly values: PixelValues;
  promptOf(values: PixelValues): Prompt<PromptImage>;
  readonly sites: readonly SiteName[];
  /** Tokens whose logits are compared. */
  readonly tokens: readonly [number, number];
  readonly step?: number;
  /** Parts of the pixel values to move alone, beside all of them. */
  readonly parts?: Readonly<Record<string, readonly [start: number, end: number]>>;
  /** The numbers of a picture in the order of their gradient, each perhaps several times. Default: as they are. */
  inOrder?(values: PixelValues): ArrayLike<number>;
}

/**
 * Expects the gradients of a logit difference by activations, along a random vector at all rows, and by pixel values to be slopes.
 * Gives the shape of those by pixel values.
 */
export async function expectSlopes(
  model: PatchableModel,
  { values, promptOf, sites, tokens: [a, b], step = 1e-2, parts = {}, inOrder = ({ data }) => data }: Slopes,
): Promise<readonly number[]> {
  const metricOf = async (image: PixelValues, edits: readonly Edit[] = []) => {
    const { logits } = await readAll({ logits: model.run(promptOf(image), { edits }).logits });
    return logits[a]! - logits[b]!;
  };
  const { gradients, pixels } = model.gradients(promptOf(values), logitDifference(a, b), {
    of: sites,
    pixels: true,
  });
  for (const [i, site] of sites.entries()) {
    const own = (await gradients[site]!.read()) as Float32Array;
    const width = siteInfo(model.sites, site).features!;
    const direction = randomArray(width, 40 + i);
    const slope = own.reduce((sum, x, j) => sum + x * direction[j % width]!, 0);
    const moved = (h: number) =>
      metricOf(values, [
        addVector(
          site,
          "all",
          direction.map((x) => x * h),
        ),
      ]);
    expectSlope(await moved(step), await moved(-step), slope, step, site);
  }
  const all = (await pixels[0]!.read()) as Float32Array;
  const random = randomArray(values.data.length, 9);
  for (const [label, [start, end]] of Object.entries({ ...parts, all: [0, values.data.length] as const })) {
    const direction = random.map((x, i) => (i >= start && i < end ? x : 0));
    const along = inOrder({ ...values, data: direction });
    expect(along.length).toBe(all.length);
    const slope = all.reduce((sum, x, i) => sum + x * along[i]!, 0);
    const moved = (h: number) =>
      metricOf({ ...values, data: values.data.map((x, i) => x + h * direction[i]!) });
    expectSlope(await moved(step), await moved(-step), slope, step, label);
  }
  return pixels[0]!.shape;
}
