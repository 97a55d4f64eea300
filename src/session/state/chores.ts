import { loadImage } from "../../images/files/load.ts";
import { encodePng } from "../../images/files/png-write.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import { modelView, type PixelValues, preprocess } from "../../images/preprocess.ts";
import type { ProcessorSettings } from "../../images/processors/processor-config.ts";
import type { ProjectAnswer } from "../messages/results.ts";

/** Work for a CPU that takes long and needs no device: a host whose thread has others to answer has it done by another. */
export interface Chores {
  /** Unpacks a picture's file. Throws ImageError. */
  decode(file: Uint8Array, maxPixels: number): Promise<RgbImage>;
  /** Resizes, cuts and normalises a picture for a model, as `preprocess`. Throws ImageError. */
  pixels(picture: RgbImage, processor: ProcessorSettings): Promise<PixelValues>;
  /** What a model sees of a picture, as `modelView`, with the PNG of it. Throws ImageError. */
  view(picture: RgbImage, processor: ProcessorSettings): Promise<SeenView>;
  /** Lays vectors [points, features] out in a plane. */
  plane(points: Float32Array, count: number, how: PlaneOptions): Promise<ProjectAnswer>;
}

/** A picture as a model sees it, as a PNG. */
export interface SeenView {
  readonly width: number;
  readonly height: number;
  readonly png: Uint8Array<ArrayBuffer>;
}

/** How vectors are laid out in a plane: by their principal components, or by t-SNE from this seed. */
export interface PlaneOptions {
  readonly method: "pca" | "tsne";
  readonly seed: number;
}

/** Pictures of more pixels are large: what is done with them takes longer than sending them to somebody else. */
const LARGE_PICTURE = 2 ** 18;

export function isLarge({ width, height }: RgbImage): boolean {
  return width * height > LARGE_PICTURE;
}

/** Done at once, where it is asked for. */
export const OWN_CHORES: Chores = {
  decode: (file, maxPixels) => loadImage(file, { maxPixels }),
  pixels: async (picture, processor) => preprocess(picture, processor),
  async view(picture, processor) {
    const seen = modelView(picture, processor);
    return { width: seen.width, height: seen.height, png: encodePng(seen) };
  },
  async plane(data, count, { method, seed }) {
    const { principalPlane, neighbourPlane } = await import("../../analysis/vectors/plane.ts");
    const features = data.length / count;
    const points = Array.from({ length: count }, (_, i) => data.subarray(i * features, (i + 1) * features));
    if (method === "pca") {
      const { plane, explained } = principalPlane(points);
      return { points: Float32Array.from(plane.flat()), method, explained };
    }
    const distances = points.map((a) => points.map((b) => distance(a, b)));
    return { points: Float32Array.from(neighbourPlane(distances, { seed }).flat()), method };
  },
};

/** Euclidean. */
function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(sum);
}
