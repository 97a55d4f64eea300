/** Okabe and Ito 2008: told apart by colour-blind readers. */
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933"];
/** Told apart without colours. */
const SHAPES = [
  "circle",
  "square",
  "triangle-up",
  "diamond",
  "cross",
  "triangle-down",
  "triangle-right",
  "triangle-left",
];

/** A part of a specification of Vega-Lite. */
export type Spec = Readonly<Record<string, unknown>>;

/** A grouping whose legend keeps the order of the rows. */
export function nominal(field: string, title: string | null, values: readonly string[]): Spec {
  return { field, type: "nominal", title, sort: distinct(values) };
}

/** A shape for each group, beside the colours. */
export function shapes(field: string, title: string | null, values: readonly string[]): Spec {
  const domain = distinct(values);
  return {
    ...nominal(field, title, values),
    scale: { domain, range: domain.map((_, i) => SHAPES[i % SHAPES.length]) },
  };
}

/** A colour for each group. */
export function palette(values: readonly string[]): Spec {
  const domain = distinct(values);
  // A scheme of twenty for what the palette does not cover.
  return {
    scale:
      domain.length <= COLOURS.length
        ? { domain, range: COLOURS.slice(0, domain.length) }
        : { domain, scheme: "tableau20" },
  };
}

export function distinct<T>(values: readonly T[]): T[] {
  return [...new Set(values)];
}
