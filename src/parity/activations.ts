import { CheckpointError } from "../errors.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { siteInfo, siteNames } from "../model/walk/site-info.ts";
import type { SiteMap } from "../model/walk/site-shapes.ts";
import { layoutOf, parseSite, type SiteName, type StackName } from "../model/walk/sites.ts";
import type { Edit } from "../patching/edit.ts";
import type { PatchableModel } from "../patching/model.ts";
import { tap } from "../patching/tap.ts";
import { type Shape, showShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Check, checkTensor, type Tolerance } from "./checks.ts";
import type { Golden, GoldenFile } from "./golden-file.ts";

/** An activation as the goldens have it, freed of padding. */
export interface GoldenActivation {
  readonly name: string;
  readonly site: SiteName;
  /** For each prompt, the positions that the golden has, and their values: [positions, features] or [heads, T, T]. */
  readonly each: readonly { readonly positions: readonly number[]; readonly values: Float32Array }[];
}

/** Our values of some activations: `values[a][p]` is activation a of prompt p, at all of its positions. */
export type Values = readonly (readonly Float32Array[])[];

/** Where the keys of a pattern are among the padding, prompt by prompt. */
interface KeyColumns {
  readonly columns: readonly (readonly number[])[];
  readonly extent: number;
}

/** Which of a model's activations are wanted. */
export interface Wanted {
  readonly sites: SiteMap;
  readonly stack: StackName;
  /** Wants those whose rows are of pictures, in a stack whose own are not. Default false. */
  readonly ofImages?: boolean;
  /** Whether the goldens have the rows of all sequences one after the other, [rows, features], without padding. */
  readonly packed?: boolean;
  /** Columns of the padded tensors, where that is more than up to the last one that holds a row. */
  readonly extent?: number;
  /** Columns of the keys of cross-attention, which are another sequence's, and their number with the padding. */
  readonly keys?: KeyColumns;
  /** Which of the stack's sites, if not all. */
  readonly only?: (site: SiteName) => boolean;
  /** Names that the goldens have for some sites, beside the usual ones. */
  readonly names?: Readonly<Record<string, SiteName>>;
}

/**
 * Reads the goldens called `prefix` and the name of one of the wanted sites. `columns` says for each prompt (or image)
 * which columns of the padded tensors hold its rows. Throws CheckpointError for shapes that do not fit that.
 */
export async function readActivations(
  file: GoldenFile,
  prefix: string,
  columns: readonly (readonly number[])[],
  {
    sites,
    stack,
    ofImages = ["vision", "global", "resampler", "qformer"].includes(stack),
    packed = false,
    extent = Math.max(...columns.flat()) + 1,
    keys,
    only = () => true,
    names = {},
  }: Wanted,
): Promise<GoldenActivation[]> {
  const known: ReadonlySet<string> = new Set(
    siteNames(sites).filter((site) => {
      const info = siteInfo(sites, site);
      return info.stack === stack && (info.sequences === "images") === ofImages && only(site);
    }),
  );
  const found: GoldenActivation[] = [];
  for (const name of file.names) {
    if (!name.startsWith(prefix)) continue;
    const own = name.slice(prefix.length);
    const site = Object.hasOwn(names, own) ? names[own]! : siteOf(own);
    if (!known.has(site)) continue;
    const across = keys && site.startsWith("xattn_") ? keys : { columns, extent };
    found.push(
      packed
        ? await readPacked(file, name, site as SiteName, columns)
        : await readActivation(file, name, site as SiteName, columns, extent, across),
    );
  }
  return found;
}

/** What xpatch calls an activation of the goldens. */
function siteOf(name: string): string {
  return name === "logits_last" ? "logits" : name.replace(/(^|\.)attn_pattern\./, "$1pattern.");
}

async function readActivation(
  file: GoldenFile,
  name: string,
  site: SiteName,
  columns: readonly (readonly number[])[],
  extent: number,
  keys: KeyColumns,
): Promise<GoldenActivation> {
  const golden = await file.read(name);
  const attention = layoutOf(parseSite(site).site) === "attention";
  const perHead = /^[qk]_norm\./.test(site) && golden.shape.length === 4;
  const { shape, values } = perHead ? joinedHeads(golden, extent) : golden;
  const [batch, ...rest] = shape.length === 5 ? ofPictures(shape) : shape;
  // Logits may be there for the last positions only, or for the very last, without a dimension for it.
  const [outer = 1, count = 1, width = 1] = attention
    ? rest
    : rest.length === 1
      ? [1, 1, rest[0]]
      : [1, ...rest];
  const fits = attention ? rest.length === 3 && count === extent && width === keys.extent : rest.length <= 2;
  if (batch !== columns.length || !fits || count > extent) {
    throw new CheckpointError(
      `${name}: expected ${columns.length} prompts of up to ${extent} tokens, padding included, found ${showShape(shape)}`,
    );
  }
  const first = extent - count;
  const each = columns.map((own, b) => {
    const kept = own.filter((column) => column >= first);
    const inner = attention ? keys.columns[b]! : Array.from({ length: width }, (_, i) => i);
    const picked = new Float32Array(outer * kept.length * inner.length);
    let at = 0;
    for (let o = 0; o < outer; o++) {
      for (const column of kept) {
        const row = ((b * outer + o) * count + column - first) * width;
        for (const i of inner) picked[at++] = values[row + i]!;
      }
    }
    return { positions: kept.map((column) => own.indexOf(column)), values: picked };
  });
  if (each.every(({ positions }) => positions.length === 0)) {
    throw new CheckpointError(`${name}: holds no position of any prompt, only padding`);
  }
  return { name, site, each };
}

/** Normalised queries or keys, [batch, T, heads, headDim] or (Gemma 3) [batch, heads, T, headDim], as [batch, T, heads * headDim]. */
function joinedHeads({ shape, values }: Golden, extent: number): Golden {
  const [batch, first, second, dim] = shape as [number, number, number, number];
  if (first === extent) return { shape: [batch, first, second * dim], values };
  const moved = values.slice();
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < first; head++) {
      for (let row = 0; row < second; row++) {
        const from = ((b * first + head) * second + row) * dim;
        moved.set(values.subarray(from, from + dim), ((b * second + row) * first + head) * dim);
      }
    }
  }
  return { shape: [batch, second, first * dim], values: moved };
}

/** [items, pictures, tiles, rows, features] as [pictures, rows, features]. */
function ofPictures(shape: Shape): Shape {
  const [items, pictures, tiles, rows, width] = shape as [number, number, number, number, number];
  return [items * pictures, tiles * rows, width];
}

/** Of a golden [rows, features], the rows of each sequence in turn, as `columns` orders them. */
async function readPacked(
  file: GoldenFile,
  name: string,
  site: SiteName,
  columns: readonly (readonly number[])[],
): Promise<GoldenActivation> {
  const { shape, values } = await file.read(name);
  // Pixtral's are one batch of all pictures: [1, rows, features].
  const inner = shape.length === 3 && shape[0] === 1 ? shape.slice(1) : shape;
  const [rows, width] = inner as [number, number];
  const expected = columns.reduce((sum, { length }) => sum + length, 0);
  if (inner.length !== 2 || rows !== expected) {
    throw new CheckpointError(`${name}: expected ${expected} rows, found ${showShape(shape)}`);
  }
  let first = 0;
  const each = columns.map((own) => {
    const all = values.subarray(first * width, (first + own.length) * width) as Float32Array;
    first += own.length;
    return { positions: own.map((_, i) => i), values: takeRows(all, own, width) };
  });
  return { name, site, each };
}

/** Runs prompts in one batch and taps everything that is to be compared. */
export async function runActivations(
  model: PatchableModel,
  goldens: readonly GoldenActivation[],
  prompts: readonly Prompt[],
  edits: readonly Edit[] = [],
): Promise<Values> {
  const scope = model.device.openScope();
  try {
    const taps = Object.fromEntries(goldens.map(({ site }, a) => [`${a}`, tap(site)]));
    const tapped = scope.enter(() => model.run(prompts, { taps, edits }));
    const tensors = goldens.flatMap((_, a) => tapped[`${a}`] as Tensor<"f32">[]);
    const values = await model.device.read(tensors);
    return goldens.map((_, a) => values.slice(a * prompts.length, (a + 1) * prompts.length));
  } finally {
    scope.dispose();
  }
}

export function checkActivations(
  goldens: readonly GoldenActivation[],
  values: Values,
  tolerance: Tolerance,
): Check[] {
  return goldens.map(({ name, site, each }, a) => {
    const attention = layoutOf(parseSite(site).site) === "attention";
    const found = each.map(({ positions, values: expected }, p) => {
      const all = values[a]![p]!;
      return attention ? all : takeRows(all, positions, expected.length / positions.length);
    });
    const expected = each.map((golden) => golden.values);
    return checkTensor(name, found, expected, tolerance);
  });
}

/** Rows of a row-major [rows, width]. */
function takeRows(values: Float32Array, rows: readonly number[], width: number): Float32Array {
  const taken = new Float32Array(rows.length * width);
  rows.forEach((row, i) => {
    taken.set(values.subarray(row * width, (row + 1) * width), i * width);
  });
  return taken;
}
