import { ArgumentError, ImageError } from "../../errors.ts";
import { loadImage } from "../../images/files/load.ts";
import { checkPixelCount, type RgbImage } from "../../images/files/rgb.ts";
import type { Pixels, TaskPicture } from "../messages/values.ts";
import type { Work } from "./work.ts";

/** A picture of a request. Throws ImageError for what is none, or too large; ArgumentError for what says no picture at all. */
export async function readPicture(work: Work, spec: unknown): Promise<RgbImage> {
  if (typeof spec === "string") return work.kept.get("picture", spec);
  const maxPixels = work.bounds.picturePixels;
  if (spec instanceof Uint8Array) return work.chores.decode(spec, maxPixels);
  if (spec instanceof Blob) return loadImage(spec, { maxPixels });
  if (typeof spec === "object" && spec !== null) {
    if ("data" in spec) return fromPixels(spec as Pixels, maxPixels);
    if ("task" in spec && "input" in spec) {
      const { task, input } = spec as TaskPicture;
      const { pictureOf } = await work.tasks.use(work, task);
      return pictureOf(input);
    }
  }
  throw new ArgumentError(
    "expected a picture: the bytes of a file, { width, height, data }, a handle, or { task, input }",
  );
}

function fromPixels({ width, height, data }: Pixels, maxPixels: number): Promise<RgbImage> {
  const areWhole = [width, height].every((side) => Number.isInteger(side));
  if (!areWhole || !(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new ImageError("expected pixels as { width, height, data }, the data 8-bit RGB or RGBA");
  }
  checkPixelCount(width, height, maxPixels);
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.length);
  return loadImage({ width, height, data: bytes }, { maxPixels });
}
