import { type Colour, channelsOf, labelWidth, type Shape } from "./drawing.ts";

/** Dark to bright, so that the order can be seen without colours too. */
const STOPS: readonly Colour[] = ["#08061c", "#4b0f6b", "#a32c61", "#e3643a", "#fbb61a", "#fcffa4"];

/** How much of a picture heat covers. */
export const HEAT_OPACITY = 0.7;

/** Colour of a fraction, 0 to 1. */
export function heatColour(fraction: number): Colour {
  const place = Math.min(Math.max(fraction, 0), 1) * (STOPS.length - 1);
  const below = Math.min(Math.floor(place), STOPS.length - 2);
  const from = channelsOf(STOPS[below]!);
  const to = channelsOf(STOPS[below + 1]!);
  const hex = from.map((value, c) => {
    const mixed = Math.round(value + (to[c]! - value) * (place - below));
    return mixed.toString(16).padStart(2, "0");
  });
  return `#${hex.join("")}`;
}

const STEPS = 40;
const STEP_WIDTH = 3;
const BAR_HEIGHT = 10;

/** The colours over mid grey, as they look over a picture, between what their two ends stand for. */
export function heatLegend(from: string, to: string): { width: number; shapes: Shape[] } {
  const left = labelWidth(from) + 6;
  const barWidth = STEPS * STEP_WIDTH;
  const shapes: Shape[] = [{ kind: "label", x: 0, y: 1, text: from, colour: "#000000" }];
  shapes.push({
    kind: "rectangle",
    x: left,
    y: 0,
    width: barWidth,
    height: BAR_HEIGHT,
    fill: "#808080",
  });
  for (let i = 0; i < STEPS; i++) {
    shapes.push({
      kind: "rectangle",
      x: left + i * STEP_WIDTH,
      y: 0,
      width: STEP_WIDTH,
      height: BAR_HEIGHT,
      fill: heatColour(i / (STEPS - 1)),
      opacity: HEAT_OPACITY,
    });
  }
  shapes.push({ kind: "label", x: left + barWidth + 6, y: 1, text: to, colour: "#000000" });
  return { width: left + barWidth + 6 + labelWidth(to), shapes };
}
