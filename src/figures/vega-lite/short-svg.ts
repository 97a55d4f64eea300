/** Attributes of which SVG has these values anyway. Of lines only: a gradient ends elsewhere unless told. */
const DEFAULTS =
  / (?:opacity|fill-opacity|stroke-opacity|stroke-width)="1"| font-weight="normal"| transform="translate\(0,0\)"/g;
const ENDS = / [xy][12]="0"/g;
const FONT = / font-family="([^"]*)"/g;
/** A mark without a tooltip, which is a shape at a place. */
const MARK = /<path transform="translate\(([^,()]+),([^,()]+)\)" d="([^"]*)"([^<>]*)\/>/g;
/** A shape that is there as often is written once. */
const OFTEN = 4;

/** A tag without attributes that change nothing. */
export function withoutDefaults(tag: string): string {
  // Pictures are told apart from their places.
  if (tag.startsWith("<image ")) return tag;
  const short = tag.replace(DEFAULTS, "");
  return tag.startsWith("<line ") ? short.replace(ENDS, "") : short;
}

/**
 * The same picture in fewer characters: without groups that say nothing, and a font for each word where one is enough; a mark
 * that is there often is there once, and its places refer to it.
 */
export function shortSvg(svg: string): string {
  return shareMarks(withOneFont(withoutBareGroups(svg)));
}

function withoutBareGroups(svg: string): string {
  const bare: boolean[] = [];
  return svg.replace(/<g>|<g [^>]*>|<\/g>/g, (tag) => {
    if (tag !== "</g>") bare.push(tag === "<g>");
    return (tag === "</g>" ? bare.pop() : bare.at(-1)) ? "" : tag;
  });
}

/** The font of most words is the document's. */
function withOneFont(svg: string): string {
  const counts = countsOf([...svg.matchAll(FONT)].map(([attribute]) => attribute));
  const [most] = [...counts].sort(([, a], [, b]) => b - a);
  if (!most || most[1] < 2 || /<svg[^>]* font-family=/.test(svg)) return svg;
  return svg.replaceAll(most[0], "").replace(/<svg[^>]*(?=>)/, (open) => `${open}${most[0]}`);
}

function shareMarks(svg: string): string {
  const counts = countsOf([...svg.matchAll(MARK)].map(([, , , shape, look]) => `d="${shape}"${look}`));
  const shared = [...counts].filter(([, count]) => count >= OFTEN).map(([mark]) => mark);
  if (shared.length === 0) return svg;
  const definitions = shared.map((mark, i) => `<path id="mark_${i}" ${mark}/>`);
  return svg
    .replace(MARK, (path, x: string, y: string, shape: string, look: string) => {
      const i = shared.indexOf(`d="${shape}"${look}`);
      return i < 0 ? path : `<use xlink:href="#mark_${i}" x="${x}" y="${y}"/>`;
    })
    .replace(/<svg[^>]*>/, (open) => `${open}<defs>${definitions.join("")}</defs>`);
}

function countsOf(texts: readonly string[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return counts;
}
