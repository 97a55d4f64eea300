import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { cividis } from "../../ui/colour.ts";

export interface HeatTileProps {
  readonly picture: ImageBitmap;
  readonly grid: { readonly rows: number; readonly columns: number };
  /** By patch, row by row. */
  readonly weights: Float32Array;
  /** What is full colour. */
  readonly peak: number;
}

/** Of the canvas; it is shown at the size of its place. */
const SIDE = 192;

/** A picture in grey under the colours of its patches' values: from none to the peak. */
export function HeatTile({ picture, grid, weights, peak }: HeatTileProps): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const height = Math.round((SIDE * picture.height) / picture.width);
    context.canvas.height = height;
    context.filter = "grayscale(1)";
    context.drawImage(picture, 0, 0, SIDE, height);
    context.filter = "none";
    const [width, tall] = [SIDE / grid.columns, height / grid.rows];
    weights.forEach((weight, i) => {
      const share = peak > 0 ? weight / peak : 0;
      context.fillStyle = `rgb(${cividis(share).join(" ")} / ${(0.45 + 0.4 * share).toFixed(3)})`;
      context.fillRect((i % grid.columns) * width, Math.floor(i / grid.columns) * tall, width, tall);
    });
  }, [picture, weights, peak]);
  return <canvas ref={canvas} width={SIDE} height={SIDE} />;
}
