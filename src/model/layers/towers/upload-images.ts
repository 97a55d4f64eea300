import { ImageError } from "../../../errors.ts";
import type { ProcessorSettings } from "../../../images/processors/processor-config.ts";
import type { Device } from "../../../tensor/device.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { VisionConfig } from "../../checkpoint/config/vision-config.ts";
import { type PromptImage, pixelValues } from "../../prompt/prompt-image.ts";

/**
 * Pictures on the device: f32 [images, 3, size, size], or where they are cut into tiles [tiles, 3, size, size]. Throws
 * ImageError when the processor makes another size, or another number of tiles, than the tower takes.
 *
 * @param tilesOf how many tiles a picture has. Default 1.
 */
export function uploadImages(
  device: Device,
  images: readonly PromptImage[],
  { imageSize, channels }: Pick<VisionConfig, "imageSize" | "channels">,
  processor: ProcessorSettings,
  tilesOf: (image: PromptImage) => number = () => 1,
): Tensor {
  const shape = [channels, imageSize, imageSize];
  const counts = images.map(tilesOf);
  const tiles = counts.reduce((sum, count) => sum + count, 0);
  const data = new Float32Array(tiles * channels * imageSize * imageSize);
  let end = 0;
  images.forEach((image, i) => {
    const values = pixelValues(image, processor);
    if (values.shape.join() !== shape.join()) {
      throw new ImageError(
        `expected pixel values [${shape.join(", ")}] for this vision tower, found [${values.shape.join(", ")}]`,
      );
    }
    const found = values.tiling?.count ?? 1;
    if (found !== counts[i]) {
      throw new ImageError(`expected pixel values of ${counts[i]} tile(s) for this model, found ${found}`);
    }
    data.set(values.data, end);
    end += values.data.length;
  });
  return device.tensor(data, { shape: [tiles, ...shape] });
}
