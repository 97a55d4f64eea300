import { PNG } from "pngjs";
import { describe, expect, test } from "vitest";
import { decodeImage } from "../../src/images/files/decode.ts";
import { encodePng } from "../../src/images/files/png-write.ts";
import type { RgbImage } from "../../src/images/files/rgb.ts";
import { seededNumbers } from "../helpers/compare.ts";

type Sample = (x: number, y: number, channel: number) => number;

function picture(width: number, height: number, sample: Sample): RgbImage {
  const data = Uint8Array.from({ length: 3 * width * height }, (_, i) => {
    const pixel = Math.trunc(i / 3);
    return sample(pixel % width, Math.trunc(pixel / width), i % 3);
  });
  return { width, height, data };
}

const next = seededNumbers(7);
const PICTURES: Record<string, RgbImage> = {
  "one pixel": picture(1, 1, (_x, _y, c) => 100 * c),
  noise: picture(37, 23, () => Math.trunc(128 + 127 * next())),
  gradient: picture(64, 64, (x, y, c) => 2 * x + y + 40 * c),
  stripes: picture(40, 30, (x) => (x % 5 === 0 ? 255 : 0)),
  "rings, for Paeth": picture(50, 50, (x, y) => Math.trunc(Math.hypot(x - 25, y - 25) * 9)),
};

describe.each(Object.entries(PICTURES))("a PNG of %s", (_, image) => {
  test("is the picture again when it is decoded, here and by pngjs", async () => {
    const bytes = encodePng(image);
    expect(await decodeImage(bytes)).toMatchObject({
      width: image.width,
      height: image.height,
      data: image.data,
    });
    const { data } = PNG.sync.read(Buffer.from(bytes));
    expect(data.filter((_, i) => i % 4 < 3)).toEqual(Buffer.from(image.data));
  });

  test("is no larger than that of pngjs", () => {
    const png = new PNG({ width: image.width, height: image.height });
    for (let i = 0; i < image.data.length; i++) png.data[Math.trunc(i / 3) * 4 + (i % 3)] = image.data[i]!;
    for (let i = 3; i < png.data.length; i += 4) png.data[i] = 255;
    expect(encodePng(image).length).toBeLessThanOrEqual(PNG.sync.write(png, { colorType: 2 }).length);
  });
});
