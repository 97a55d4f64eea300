import "vega";

/** What Vega exports and its types leave out. */
declare module "vega" {
  export const textMetrics: {
    /** Pixels that a line of text is wide. */
    width: (item: { fontSize?: number }, text: unknown) => number;
  };
}
