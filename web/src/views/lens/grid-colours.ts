import type { GridColours, Rgb } from "./draw-grid.ts";

const NAMES: Readonly<Record<keyof GridColours, string>> = {
  panel: "--panel",
  ground: "--sunken",
  heat: "--heat",
  ink: "--ink",
  soft: "--ink-soft",
  accent: "--accent",
  reach: "--reach",
};

let known: { readonly theme: string; readonly colours: GridColours } | undefined;

/** The theme's colours as numbers; `probe` is an element of the page that takes them on. */
export function gridColours(probe: HTMLElement): GridColours {
  const theme = `${document.documentElement.dataset["theme"]} ${matchMedia("(prefers-color-scheme: dark)").matches}`;
  if (known?.theme === theme) return known.colours;
  const colours = Object.fromEntries(
    Object.entries(NAMES).map(([name, property]) => {
      probe.style.color = `var(${property})`;
      return [name, parsed(getComputedStyle(probe).color)];
    }),
  ) as unknown as GridColours;
  known = { theme, colours };
  return colours;
}

function parsed(colour: string): Rgb {
  const [red = 0, green = 0, blue = 0] = (colour.match(/[\d.]+/g) ?? []).map(Number);
  return [red, green, blue];
}
