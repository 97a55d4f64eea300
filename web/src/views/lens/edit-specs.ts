import type { ArraySpec, EditSpec, TapSpec } from "../../../../src/session/messages/values.ts";
import type { LensEdit } from "./lens-slice.ts";
import { countOf, type Extent, type Range } from "./places.ts";

/** Something to read in the source: a site of one layer at some tokens in a row. */
export interface Wanted {
  /** With its layer. */
  readonly site: string;
  readonly positions: Range;
  readonly head?: number;
}

/** Equal ones have equal keys. */
export function wantedKey({ site, positions: { start, end }, head }: Wanted): string {
  return `${site}@${start}-${end}${head === undefined ? "" : `#${head}`}`;
}

export function tapOf({ site, positions, head }: Wanted): TapSpec {
  return { site, at: positions, ...(head !== undefined && { head }) };
}

/** What of the source an edit takes, by the layer of the target that it goes to. */
function wantedAt({ site, head, from, to }: LensEdit, layer: number): Wanted | undefined {
  if (!from) return undefined;
  const ofOne = countOf(from.layers) === 1;
  const source = ofOne ? from.layers.start : from.layers.start + layer - to.layers.start;
  return { site: `${site}.${source}`, positions: from.positions, ...(head !== undefined && { head }) };
}

/** What edits take from the source, each thing once. */
export function wantedBy(edits: readonly LensEdit[]): Wanted[] {
  const wanted = new Map<string, Wanted>();
  for (const edit of edits) {
    for (let layer = edit.to.layers.start; layer < edit.to.layers.end; layer++) {
      const each = wantedAt(edit, layer);
      if (each) wanted.set(wantedKey(each), each);
    }
  }
  return [...wanted.values()];
}

/** An edit as the session takes it: one for each layer. `holds` says what the source holds, [positions, features]. */
export function editSpecs(edit: LensEdit, holds: (wanted: Wanted) => ArraySpec): EditSpec[] {
  const { operation, amount, site, head, to } = edit;
  return Array.from({ length: countOf(to.layers) }, (_, i) => {
    const layer = to.layers.start + i;
    const wanted = wantedAt(edit, layer);
    return {
      operation,
      site: `${site}.${layer}`,
      at: to.positions,
      ...(head !== undefined && { head }),
      ...(wanted && { value: forPositions(holds(wanted)) }),
      ...((operation === "add" || operation === "interpolate") && { amount }),
    };
  });
}

/** One token's vector goes to every token, those of several to one each. */
function forPositions({ shape, data }: ArraySpec): ArraySpec {
  return shape[0] === 1 ? { shape: shape.slice(1), data } : { shape, data };
}

/** The same edit at every layer of its site in turn, from the same layer of the source. */
export function layerVariants(edit: LensEdit, layers: readonly number[]): LensEdit[] {
  return layers.map((layer) => {
    const only = { start: layer, end: layer + 1 };
    const { from, to, ...how } = edit;
    return {
      ...how,
      ...(from && { from: { ...from, layers: only } }),
      to: { ...to, layers: only },
    };
  });
}

export interface Bounds {
  /** Tokens; undefined while the prompt is not read yet. */
  readonly source: number | undefined;
  readonly target: number | undefined;
  readonly layers: number;
  /** Layers that have the edit's site; undefined where the model has none such. */
  readonly siteLayers: readonly number[] | undefined;
  readonly heads: number | undefined;
}

/** Why an edit can do nothing with these prompts and this model, in words; undefined where it can. */
export function problemOf(edit: LensEdit, bounds: Bounds): string | undefined {
  const { from, to, site, head } = edit;
  const { source, target, layers, siteLayers, heads } = bounds;
  if (!siteLayers) return `this model has no ${site}`;
  if (head !== undefined && !(heads !== undefined && head < heads)) {
    return heads === undefined ? `${site} has no heads` : `${site} has heads 0 to ${heads - 1}`;
  }
  const sides: [string, typeof to | undefined, number | undefined][] = [
    ["target", to, target],
    ["source", from, source],
  ];
  for (const [name, place, positions] of sides) {
    if (!place) continue;
    if (positions === undefined) return `the ${name} is empty, or is still being read`;
    const why = outside(name, place, { positions, layers });
    if (why) return why;
    for (let layer = place.layers.start; layer < place.layers.end; layer++) {
      if (!siteLayers.includes(layer)) return `layer ${layer} has no ${site}`;
    }
  }
  if (!from) return undefined;
  return (
    mismatch("tokens", countOf(from.positions), countOf(to.positions)) ??
    mismatch("layers", countOf(from.layers), countOf(to.layers))
  );
}

function outside(name: string, { positions, layers }: LensEdit["to"], extent: Extent): string | undefined {
  if (positions.end > extent.positions) return `the ${name} has ${extent.positions} tokens`;
  return layers.end > extent.layers ? `the model has ${extent.layers} layers` : undefined;
}

function mismatch(what: string, from: number, to: number): string | undefined {
  return from === 1 || from === to ? undefined : `${from} ${what} cannot be put onto ${to}`;
}
