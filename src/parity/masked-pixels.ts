import { CheckpointError } from "../errors.ts";
import type { PixelValues } from "../images/preprocess.ts";
import type { ProcessorSettings, Size } from "../images/processors/processor-config.ts";
import { quarterAreas } from "../images/quarters.ts";
import type { Golden, GoldenFile } from "./golden-file.ts";

/** The processor as the goldens of a case had it, where they have more images than pictures exactly if those were split. */
export function quartersAs(
  goldens: GoldenFile,
  name: string,
  byItem: readonly (readonly string[])[],
  processor: ProcessorSettings,
): ProcessorSettings {
  const key = `${name}/in.pixel_values`;
  if (processor.kind !== "idefics2" || !goldens.has(key)) return processor;
  return { ...processor, quarters: goldens.shape(key)[1] !== Math.max(...byItem.map((own) => own.length)) };
}

/**
 * Pixel values of pictures of unequal size, item by item of a case, each picture perhaps in pieces: [items, most of an item, 3,
 * height, width] with a mask of the pixels that are no padding. Throws CheckpointError for another number of them.
 */
export async function readMasked(
  goldens: GoldenFile,
  name: string,
  byItem: readonly (readonly string[])[],
  { quarters }: ProcessorSettings,
): Promise<PixelValues[]> {
  const key = `${name}/in.pixel_values`;
  const golden = await goldens.read(key, 5);
  const mask = await goldens.read(`${name}/in.pixel_attention_mask`, 4);
  const [items, most, channels, height, width] = golden.shape as [number, number, number, number, number];
  const pieces = quarters ? quarterAreas({ width: 2, height: 2 }).length : 1;
  const fits =
    items === byItem.length &&
    most === Math.max(...byItem.map((own) => own.length)) * pieces &&
    channels === 3 &&
    mask.shape.join() === [items, most, height, width].join();
  if (!fits) {
    throw new CheckpointError(
      `${key}: expected up to ${pieces} RGB images for each picture, with their masks, found [${golden.shape}] and [${mask.shape}]`,
    );
  }
  const pieceAt = (place: number) => {
    const area = height * width;
    const real = mask.values.subarray(place * area, (place + 1) * area);
    const size = sizeOf(real, { height, width });
    return { size, data: cut(golden, place, size) };
  };
  return byItem.flatMap((own, item) =>
    own.map((_, i): PixelValues => {
      const all = Array.from({ length: pieces }, (_, piece) => pieceAt(item * most + i * pieces + piece));
      const { size, data } = all.at(-1)!;
      const shape = [3, size.height, size.width] as const;
      if (pieces === 1) return { data, shape };
      const tiling = { count: pieces, ...size, sizes: all.map((piece) => piece.size) };
      return { data: Float32Array.from(all.flatMap((piece) => [...piece.data])), shape, tiling };
    }),
  );
}

/** Of the part of a mask that is not 0, which begins in its corner. */
function sizeOf(mask: Golden["values"], { height, width }: Size): Size {
  const row = mask.subarray(0, width);
  const column = Array.from({ length: height }, (_, y) => mask[y * width]!);
  const count = (values: Iterable<number>) => Array.from(values).filter((value) => value !== 0).length;
  return { height: count(column), width: count(row) };
}

/** The corner of this size of one of the pictures. */
function cut({ shape, values }: Golden, place: number, size: Size): Float32Array<ArrayBuffer> {
  const [, , , height, width] = shape as [number, number, number, number, number];
  const data = new Float32Array(3 * size.height * size.width);
  let at = 0;
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < size.height; y++) {
      const start = ((place * 3 + channel) * height + y) * width;
      data.set(values.subarray(start, start + size.width), at);
      at += size.width;
    }
  }
  return data;
}
