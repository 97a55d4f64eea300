import { expect, test } from "vitest";
import { shortSvg, withoutDefaults } from "../../src/figures/vega-lite/short-svg.ts";
import { svgToPng } from "../../src/platform/node-svg.ts";
import { readXml } from "../helpers/xml.ts";

const OPEN = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="60" height="60">`;
const marks = (count: number, look: string) =>
  Array.from(
    { length: count },
    (_, i) =>
      `<path transform="translate(${6 * i + 1},${5 * i})" d="M0,0h7v5Z" ${look} opacity="1" stroke-width="1"/>`,
  );
const text = (font: string, y: number) =>
  `<text transform="translate(0,${y})" font-family="${font}" font-weight="normal" fill="#000">Ag</text>`;
const whole = [
  OPEN,
  `<rect width="60" height="60" fill="white"/><g fill="none"><g><g transform="translate(3,2)"><g>`,
  ...marks(5, `stroke="#a00"`),
  "</g>",
  ...marks(3, `fill="#0a0"`),
  `</g><g></g></g><line transform="translate(0,30)" x2="50" y2="0" stroke="#00a" stroke-width="1"/>`,
  `${text("DejaVu Sans", 20)}${text("DejaVu Sans", 40)}${text("DejaVu Sans Mono", 58)}</g></svg>`,
].join("");

test("a shorter document is the same picture", async () => {
  const plain = whole.replace(/<(?!svg)[a-z][^>]*>/g, withoutDefaults);
  const short = shortSvg(plain);
  expect(await svgToPng(short, 2)).toEqual(await svgToPng(whole, 2));
  expect(short.length).toBeLessThan(0.7 * whole.length);
  // What is there five times is there once.
  expect(readXml(short)).toMatchObject({ use: 5, path: 4, g: 2 });
  expect(short).not.toMatch(/ (?:opacity|stroke-width|font-weight|y2)=/);
  expect(short.match(/font-family="[^"]*"/g)).toEqual([
    `font-family="DejaVu Sans"`,
    `font-family="DejaVu Sans Mono"`,
  ]);
  expect(shortSvg(short)).toBe(short);
});

test("ends of gradients and places of pictures stay", () => {
  const gradient = `<linearGradient id="a" x1="0" x2="0" y1="1" y2="0">`;
  const image = `<image xlink:href="data:image/png;base64,AA" transform="translate(0,0)"/>`;
  expect([withoutDefaults(gradient), withoutDefaults(image)]).toEqual([gradient, image]);
});
