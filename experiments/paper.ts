/** Accuracies that Luo et al. 2025 (arXiv 2410.22330) give for image queries, as means of their six tasks on their data. */
export interface PaperRow {
  readonly setup: string;
  readonly accuracy: number;
}

const PAPER: readonly { readonly model: RegExp; readonly rows: readonly PaperRow[] }[] = [
  {
    model: /llava-1\.5-7b/i,
    rows: [
      { setup: "text query, text patch", accuracy: 0.59 },
      { setup: "image query, no context", accuracy: 0 },
      { setup: "image query, text prompt", accuracy: 0.18 },
      { setup: "image query, text patch (layer 15)", accuracy: 0.32 },
      { setup: "image query, patch from the language model", accuracy: 0.37 },
    ],
  },
  {
    model: /mantis-8b.*fuyu/i,
    rows: [
      { setup: "text query, text patch", accuracy: 0.34 },
      { setup: "text query, image patch", accuracy: 0.25 },
      { setup: "image query, text prompt", accuracy: 0.09 },
      { setup: "image query, text patch (layer 23)", accuracy: 0.31 },
      { setup: "image query, image prompt", accuracy: 0.18 },
      { setup: "image query, image patch", accuracy: 0.2 },
    ],
  },
  {
    model: /idefics2-8b/i,
    rows: [
      { setup: "text query, text patch", accuracy: 0.65 },
      { setup: "text query, image patch", accuracy: 0.42 },
      { setup: "image query, text prompt", accuracy: 0.18 },
      { setup: "image query, text patch (layer 16)", accuracy: 0.51 },
      { setup: "image query, image prompt", accuracy: 0.43 },
      { setup: "image query, image patch", accuracy: 0.31 },
      { setup: "image query, patch from the language model", accuracy: 0.52 },
    ],
  },
];

/** What the paper reports of a model, by its name; undefined where it is none of the paper's. */
export function paperRows(model: string): readonly PaperRow[] | undefined {
  return PAPER.find((entry) => entry.model.test(model))?.rows;
}

/** The paper's six tasks. */
export const PAPER_TASKS = [
  "country-capital",
  "country-currency",
  "animal-latin",
  "animal-young",
  "food-color",
  "food-flavor",
] as const;
