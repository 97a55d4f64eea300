import { useEffect, useState } from "preact/hooks";

/** A picture decoded, for canvases; undefined until it is. */
export function useBitmap(png: Uint8Array | undefined): ImageBitmap | undefined {
  const [bitmap, setBitmap] = useState<ImageBitmap>();
  useEffect(() => {
    let made: ImageBitmap | undefined;
    let ended = false;
    setBitmap(undefined);
    if (png) {
      void createImageBitmap(new Blob([png as Uint8Array<ArrayBuffer>], { type: "image/png" })).then(
        (each) => {
          made = each;
          if (ended) made.close();
          else setBitmap(made);
        },
      );
    }
    return () => {
      ended = true;
      made?.close();
    };
  }, [png]);
  return bitmap;
}

/** Its pixels as the library's figures take them. */
export async function rgbOf(png: Uint8Array): Promise<{ width: number; height: number; data: Uint8Array }> {
  const bitmap = await createImageBitmap(new Blob([png as Uint8Array<ArrayBuffer>], { type: "image/png" }));
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d")!;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  return {
    width,
    height,
    data: Uint8Array.from({ length: 3 * width * height }, (_, i) => data[4 * Math.floor(i / 3) + (i % 3)]!),
  };
}
