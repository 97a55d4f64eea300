import { ImageError } from "../../errors.ts";
import type { ProcessorSettings } from "../../images/processor-config.ts";
import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { VisionConfig } from "../checkpoint/config/vision-config.ts";
import { type PromptImage, pixelValues } from "../prompt/prompt-image.ts";

/**
 * Pictures on the device: f32 [images, 3, size, size]. Throws ImageError when the processor makes another size than the
 * tower takes.
 */
export function uploadImages(
  device: Device,
  images: readonly PromptImage[],
  { imageSize, channels }: VisionConfig,
  processor: ProcessorSettings,
): Tensor {
  const shape = [channels, imageSize, imageSize];
  const data = new Float32Array(images.length * channels * imageSize * imageSize);
  images.forEach((image, i) => {
    const values = pixelValues(image, processor);
    if (values.shape.join() !== shape.join()) {
      throw new ImageError(
        `expected pixel values [${shape.join(", ")}] for this vision tower, found [${values.shape.join(", ")}]`,
      );
    }
    data.set(values.data, i * values.data.length);
  });
  return device.tensor(data, { shape: [images.length, ...shape] });
}
