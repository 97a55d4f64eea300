import type { ImagePatches } from "../analysis/heads/attention-map.ts";
import { HeadRanking } from "../analysis/heads/rank-heads.ts";
import { checkSameCells } from "../analysis/maps/compare-maps.ts";
import { type PatchColumn, PatchMap } from "../analysis/maps/patch-map-result.ts";
import {
  aBoolean,
  aKindOf,
  aListOf,
  aNumber,
  anObject,
  anyNumber,
  aString,
  checkArgument,
  checkOptions,
  type Expected,
  either,
  type Options,
} from "../arguments.ts";
import { ArgumentError } from "../errors.ts";
import type { RgbImage } from "../images/files/rgb.ts";
import type { HeatChart } from "./chart.ts";
import { chartFigure } from "./chart-figure.ts";
import type { Figure } from "./figure.ts";
import { pictureHeatFigure } from "./picture-heat.ts";
import { settingLines } from "./setting-lines.ts";
import { showNumber, showToken } from "./text.ts";

/** Numbers by row and column, with what they are called. */
export interface HeatData {
  /** Labels from top to bottom. */
  readonly rows: readonly (string | number)[];
  /** Labels from left to right. */
  readonly columns: readonly (string | number)[];
  /** [rows, columns]; squares whose value is not finite are left white. */
  readonly values: readonly ArrayLike<number>[];
}

/** Titles, labels and the scale of {@link heatFigure}. */
export interface HeatOptions {
  title?: string;
  /** What is seen, below the picture. */
  caption?: string;
  /** Titles of the axes, and of the colours. */
  x?: string;
  y?: string;
  value?: string;
  /** Whether values have a middle, 0. Default: whether any is below it. */
  diverging?: boolean;
  /** Of maps by position: the picture as the model saw it (`modelView`), to draw the effects of its patches over. */
  picture?: RgbImage;
  /** Where the picture's patches are: `imagePatches(prompt)`. */
  patches?: ImagePatches;
}

const OPTIONS: Options<HeatOptions> = {
  title: aString,
  caption: aString,
  x: aString,
  y: aString,
  value: aString,
  diverging: aBoolean,
  picture: anObject,
  patches: anObject,
};

/**
 * A heat map of a patch map (its effects, by layer and position or head, a panel for each kind of site), of several maps of the
 * same cells beside each other (an exact one and estimates), of a ranking of heads (by layer and head), or of any numbers by row
 * and column. With a picture the effects of its patches are drawn over it, a panel for each site. Throws ArgumentError.
 *
 * @example await show(heatFigure(await patchMap(model, clean, corrupted)));
 */
export function heatFigure(
  data: PatchMap | readonly PatchMap[] | HeadRanking | HeatData,
  options: HeatOptions = {},
): Figure {
  checkOptions("heatFigure", options, OPTIONS);
  const { picture, patches, x, y, ...others } = options;
  if (picture || patches) {
    if (data instanceof PatchMap && picture && patches && x === undefined && y === undefined) {
      return pictureHeatFigure(data, picture, patches, others);
    }
    if (x !== undefined || y !== undefined) {
      throw new ArgumentError("heatFigure: over a picture there are no axes for x and y to name");
    }
    throw new ArgumentError("heatFigure: expected picture and patches together, and a patch map by position");
  }
  if (data instanceof HeadRanking) return ofMaps([data.map], options, `${data}`);
  if (data instanceof PatchMap) return ofMaps([data], options, `${data}`);
  if (Array.isArray(data)) return besideEachOther(data, options);
  return ofNumbers(data as HeatData, options);
}

function besideEachOther(maps: readonly PatchMap[], options: HeatOptions): Figure {
  checkArgument("heatFigure", "data", maps, aListOf(aKindOf(PatchMap, "from patchMap or attributionMap")));
  if (maps.length === 0) throw new ArgumentError("heatFigure: expected at least one map, found none");
  const names = maps.map(({ estimated }) => estimated);
  const twice = names.findIndex((name, i) => names.indexOf(name) !== i);
  if (twice >= 0) {
    throw new ArgumentError(
      `heatFigure: expected maps made in other ways, found two ${names[twice] || "exact ones"}`,
    );
  }
  for (const map of maps) checkSameCells("heatFigure", maps[0]!, map);
  return ofMaps(maps, options, maps.join("\n\n"));
}

function ofMaps(maps: readonly PatchMap[], options: HeatOptions, text: string): Figure {
  const [map] = maps as [PatchMap];
  const { columns, direction, metric } = map;
  const estimated = maps.length === 1 ? map.estimated : "";
  const [from, into] = direction === "denoising" ? ["clean", "corrupted"] : ["corrupted", "clean"];
  const heads = columns.length > 0 && "head" in columns[0]!;
  const kinds = new Set(map.rows.map((site) => siteParts(site).kind));
  const chart: HeatChart = {
    kind: "heat",
    title: metric,
    lines: [
      `effect of ${from} activations in the ${into} prompt${estimated && `, ${estimated}`}`,
      ...settingLines(...maps),
    ],
    x: heads ? "head" : "position",
    y: kinds.size === 1 ? [...kinds][0]! : "layer",
    value: estimated ? "estimated effect" : "effect",
    ...given(options),
    diverging: options.diverging ?? maps.some(hasNegative),
    caption: [
      options.caption,
      `${metric} is ${showNumber(map.clean)} clean and ${showNumber(map.corrupted)} corrupted; the effect is 0 where a patch changes nothing and 1 where it does as much as all of the ${from} prompt${estimated && `, ${estimated}`}`,
    ]
      .filter(Boolean)
      .join(". "),
    rows: maps.flatMap((one) => {
      const { effects, values, rows, estimated } = one;
      const how = estimated && "estimated ";
      return rows.flatMap((site, r) => {
        const { kind, layer } = siteParts(site);
        const panel = [
          ...(kinds.size > 1 ? [kind] : []),
          ...(maps.length > 1 ? [estimated || "exact"] : []),
        ].join(", ");
        return columns.map((column, c) => ({
          ...(panel && { panel }),
          x: columnName(column),
          y: layer ?? site,
          value: effects[r]![c]!,
          tooltip: `${site}, ${"head" in column ? "head " : ""}${columnName(column)}: ${how}effect ${showNumber(effects[r]![c]!)}, ${metric} ${showNumber(values[r]![c]!)}`,
        }));
      });
    }),
  };
  return chartFigure(chart, text);
}

function hasNegative({ effects }: PatchMap): boolean {
  return effects.some((row) => row.some((effect) => effect < 0));
}

/** Without those that are undefined, which would take the place of defaults. */
function given(options: HeatOptions): HeatOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

/** "resid_post.3" → resid_post, 3 */
function siteParts(site: string): { kind: string; layer?: string } {
  const [, kind, layer] = /^(.*)\.(\d+)$/.exec(site) ?? [];
  return kind === undefined ? { kind: site } : { kind, layer };
}

function columnName(column: PatchColumn): string {
  return "head" in column ? `${column.head}` : showToken(column.position, column.token);
}

const someNames: Expected = { ...aListOf(either(aString, aNumber)), words: "a list" };
const DATA = {
  rows: someNames,
  columns: someNames,
  values: { ...aListOf(aListOf(anyNumber)), words: "a list of rows of numbers" },
};

function ofNumbers(data: HeatData, options: HeatOptions): Figure {
  for (const name of ["rows", "columns", "values"] as const) {
    checkArgument("heatFigure", `data.${name}`, data?.[name], DATA[name]);
  }
  const { rows, columns, values } = data;
  const wrong = values.findIndex((row) => row.length !== columns.length);
  if (values.length !== rows.length || wrong >= 0) {
    const found = wrong >= 0 ? `${values[wrong]!.length} in row ${wrong}` : `${values.length} rows`;
    throw new ArgumentError(
      `heatFigure: expected values as ${rows.length} rows of ${columns.length}, found ${found}`,
    );
  }
  if (rows.length * columns.length === 0) {
    throw new ArgumentError("heatFigure: expected at least one row and one column, found none");
  }
  // Two names that are written alike would lie on one another.
  const twice = [rows, columns].flatMap((names) => {
    const written = names.map(String);
    return written.filter((name, i) => written.indexOf(name) !== i);
  });
  if (twice.length > 0) {
    throw new ArgumentError(
      `heatFigure: expected names that differ, found ${JSON.stringify(twice[0])} twice`,
    );
  }
  const { title = "", x = "", y = "", value = "value" } = options;
  return chartFigure({
    kind: "heat",
    caption: options.caption,
    diverging: options.diverging ?? values.some((row) => Array.from(row).some((number) => number < 0)),
    title,
    x,
    y,
    value,
    rows: rows.flatMap((name, r) =>
      columns.map((column, c) => ({
        x: column,
        y: name,
        value: values[r]![c]!,
        tooltip: `${[y, name].filter((part) => part !== "").join(" ")}, ${[x, column].filter((part) => part !== "").join(" ")}: ${showNumber(values[r]![c]!)}`,
      })),
    ),
  });
}
