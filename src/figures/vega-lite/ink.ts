import type { Spec } from "./groupings.ts";

/**
 * From which part of a scale on its colours are so dark that white letters have more contrast than black ones (by WCAG's
 * relative luminance): viridis below, shades from white to blue above, red and blue on either side of the middle.
 */
const TURN = { viridis: 0.44, shades: 0.76, diverging: 0.76 } as const;

/** The colour of letters on a colour that stands for `datum.value`. */
export function inkOn(scale: keyof typeof TURN, [low, high]: readonly [number, number]): Spec {
  const turn = low + TURN[scale] * (high - low);
  const dark = {
    viridis: `datum.value < ${turn}`,
    shades: `datum.value > ${turn}`,
    diverging: `abs(datum.value) > ${TURN.diverging * high}`,
  };
  return { condition: { test: dark[scale], value: "#ffffff" }, value: "#000000" };
}
