import { NOT_XML } from "../escape.ts";
import { shortSvg, withoutDefaults } from "./short-svg.ts";

/** A mark with a description of its own, as Vega writes it. */
const DESCRIBED =
  /<(path|text)( [^>]*?)?aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="[a-z]+ mark"([^>]*?)(?:\/>|>([^<]*)<\/\1>)/g;
const ROLES = / (?:role|aria-[a-z]+|pointer-events|class)="[^"]*"/g;
const NOTHING =
  /<path d="(?:M0,0h0v0h0Z)?"\/>|<path d="" display="none"\/>|<path d="M0(?:\.5)?,0(?:\.5)?h[\d.]+v[\d.]+h-[\d.]+Z"\/>/g;
const LONG_NUMBER = /-?\d+\.\d{4,}(?:e-?\d+)?/g;
/** Of attributes in which nothing but coordinates stands. */
const COORDINATES = / (?:d|transform|x|y|x1|x2|y1|y2|width|height)="[^"]*"/g;

/**
 * What Vega writes, made smaller and with tooltips: descriptions of marks become titles, which browsers show; roles, empty
 * shapes and digits beyond a thousandth of a pixel go, and a picture that is there several times is there once.
 */
export function tidySvg(svg: string): string {
  const tidy = svg
    .replaceAll(NOT_XML, "\ufffd")
    .replace(DESCRIBED, (_, tag: string, before = "", label: string, after: string, text = "") => {
      const attributes = `${before}${after}`.replace(/\s+/g, " ").trimEnd();
      return `<${tag}${attributes.startsWith(" ") ? "" : " "}${attributes}><title>${label.replaceAll("&#xA;", "\n")}</title>${text}</${tag}>`;
    })
    .replace(/<[a-z][^>]*>/g, (tag) =>
      tag.startsWith("<svg") ? tag : withoutDefaults(tag.replace(ROLES, "")),
    )
    .replaceAll(NOTHING, "")
    .replace(COORDINATES, (text) =>
      text.replace(LONG_NUMBER, (number) => `${Math.round(1000 * Number(number)) / 1000 || 0}`),
    );
  return shortSvg(sharePictures(withoutEmptyGroups(tidy)));
}

function withoutEmptyGroups(svg: string): string {
  const fewer = svg.replace(/<g(?: [^>]*)?><\/g>/g, "");
  return fewer.length === svg.length ? svg : withoutEmptyGroups(fewer);
}

function sharePictures(svg: string): string {
  const pictures = new Map<string, { readonly attributes: string; count: number }>();
  const drawn = /<image xlink:href="(data:[^"]*)" transform="([^"]*)"([^>]*)\/>/g;
  for (const [, uri, , attributes] of svg.matchAll(drawn)) {
    const known = pictures.get(uri!);
    if (known) known.count++;
    else pictures.set(uri!, { attributes: attributes!, count: 1 });
  }
  const shared = [...pictures].filter(([, { count }]) => count > 1).map(([uri]) => uri);
  if (shared.length === 0) return svg;
  const definitions = shared.map(
    (uri, i) => `<image id="picture_${i}" xlink:href="${uri}"${pictures.get(uri)!.attributes}/>`,
  );
  return svg
    .replace(drawn, (image, uri: string, transform: string) => {
      const i = shared.indexOf(uri);
      return i < 0 ? image : `<use xlink:href="#picture_${i}" transform="${transform}"/>`;
    })
    .replace(/<svg[^>]*>/, (open) => `${open}<defs>${definitions.join("")}</defs>`);
}

/**
 * Names that no other SVG document has, so that several can stand in one page: there, `#gradient_0` would be that of the
 * first. They follow from the document, and not from how many were drawn before.
 */
export function withOwnNames(svg: string): string {
  const names = [...svg.matchAll(/<[^>]*? id="([^"]*)"/g)].map(([, name]) => name!);
  const rename = (text: string, prefix: string) =>
    text.replace(/( id="|url\(#|href="#)([^")]*)/g, (whole, before: string, name: string) => {
      const i = names.indexOf(name);
      return i < 0 ? whole : `${before}${prefix}${i}`;
    });
  return rename(svg, `f${hashOf(rename(svg, ""))}_`);
}

/** FNV-1a, 32 bits. */
function hashOf(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(36);
}
