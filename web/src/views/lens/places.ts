import { DocumentError, readCount, readFields } from "../../document/read.ts";

/* Places in a grid of tokens and layers. Types, not interfaces: they are part of the document. */

/** `start` up to but not including `end`. */
export type Range = { readonly start: number; readonly end: number };

/** Some tokens in a row, in some layers in a row. */
export type Place = { readonly positions: Range; readonly layers: Range };

export interface Cell {
  readonly position: number;
  readonly layer: number;
}

/** What is chosen in a grid: from `anchor` to `at`, or all layers of those tokens. */
export interface Choice {
  readonly at: Cell;
  readonly anchor: Cell;
  readonly whole: boolean;
}

export function countOf({ start, end }: Range): number {
  return end - start;
}

export function chooseCell(cell: Cell): Choice {
  return { at: cell, anchor: cell, whole: false };
}

/** The place that is chosen, in a model of so many layers. */
export function placeOf({ at, anchor, whole }: Choice, layers: number): Place {
  const between = (a: number, b: number) => ({ start: Math.min(a, b), end: Math.max(a, b) + 1 });
  return {
    positions: between(at.position, anchor.position),
    layers: whole ? { start: 0, end: layers } : between(at.layer, anchor.layer),
  };
}

export function holds({ positions, layers }: Place, { position, layer }: Cell): boolean {
  return (
    position >= positions.start && position < positions.end && layer >= layers.start && layer < layers.end
  );
}

export interface Extent {
  readonly positions: number;
  readonly layers: number;
}

/**
 * Where what was picked up comes to lie when its first cell is put onto a cell; all layers of a token stay all layers. In words where it does
 * not fit.
 */
export function putAt(from: Place, cell: Cell, extent: Extent): Place | string {
  const positions = { start: cell.position, end: cell.position + countOf(from.positions) };
  const isWhole = countOf(from.layers) === extent.layers;
  const start = isWhole ? 0 : cell.layer;
  const layers = { start, end: start + countOf(from.layers) };
  if (positions.end > extent.positions) {
    return `${countOf(positions)} tokens do not fit at position ${positions.start} of ${extent.positions}`;
  }
  if (layers.end > extent.layers) {
    return `${countOf(layers)} layers do not fit from layer ${layers.start} of ${extent.layers} on`;
  }
  return { positions, layers };
}

/** `layer 3, position 5`, `all layers, positions 5–7`. */
export function placeInWords({ positions, layers }: Place, layerCount: number): string {
  const range = (name: string, { start, end }: Range) =>
    end - start === 1 ? `${name} ${start}` : `${name}s ${start}–${end - 1}`;
  const which = countOf(layers) === layerCount && layerCount > 1 ? "all layers" : range("layer", layers);
  return `${which}, ${range("position", positions)}`;
}

export function readPlace(value: unknown, at: string): Place {
  const fields = readFields(value, at, ["positions", "layers"]);
  return {
    positions: readRange(fields["positions"], `${at}.positions`),
    layers: readRange(fields["layers"], `${at}.layers`),
  };
}

function readRange(value: unknown, at: string): Range {
  const fields = readFields(value, at, ["start", "end"]);
  const [start, end] = [readCount(fields["start"], `${at}.start`), readCount(fields["end"], `${at}.end`)];
  if (end <= start)
    throw new DocumentError(`${at}: expected a start before the end, found ${start} to ${end}`);
  return { start, end };
}
