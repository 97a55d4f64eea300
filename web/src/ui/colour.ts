/*
 * Colours for data where CSS has none to mix: pixels of a canvas over a picture. Cividis (Nuñez, Anderton, Renslow 2018,
 * doi:10.1371/journal.pone.0199239) looks the same with and without red-green blindness, and gets lighter evenly.
 */

/** Its colours at even steps from 0 to 1; between them they are mixed. */
const CIVIDIS = [
  0x00224e, 0x123570, 0x3b496c, 0x575d6d, 0x707173, 0x8a8678, 0xa59c74, 0xc3b369, 0xe1cc55, 0xfee838,
] as const;

/** The colour of a value between 0 and 1, as red, green and blue up to 255. */
export function cividis(value: number): [red: number, green: number, blue: number] {
  const place = Math.min(1, Math.max(0, value)) * (CIVIDIS.length - 1);
  const below = Math.min(Math.floor(place), CIVIDIS.length - 2);
  const mixed = (shift: number) => {
    const [from, to] = [(CIVIDIS[below]! >> shift) & 255, (CIVIDIS[below + 1]! >> shift) & 255];
    return Math.round(from + (to - from) * (place - below));
  };
  return [mixed(16), mixed(8), mixed(0)];
}

/** The same for a stylesheet. */
export function cividisCss(value: number): string {
  return `rgb(${cividis(value).join(" ")})`;
}
