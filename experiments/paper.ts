import type { Lab } from "./framework/lab.ts";
import type { Table, TableCell } from "./report/table.ts";

/** The setups of the paper's main table, as it is given in words. */
export const PAPER_SETUPS = {
  random: "random",
  noContext: "image query, no context",
  textPrompt: "image query, text prompt",
  textPatch: "image query, text patch",
  imagePrompt: "image query, image prompt",
  imagePatch: "image query, image patch",
  llmPatch: "image query, patch from the language model",
  textToText: "text query, text patch",
  imageToText: "text query, image patch",
} as const;

export type PaperSetup = keyof typeof PAPER_SETUPS;

interface PaperModel {
  readonly name: string;
  readonly pattern: RegExp;
  /** The layer patched with vectors of text examples, of image queries. */
  readonly layer: number;
  readonly accuracies: Readonly<Partial<Record<PaperSetup, number>>>;
}

/** Accuracies that Luo et al. 2025 (arXiv 2410.22330) give, as means of their six tasks on their data. */
const PAPER: readonly PaperModel[] = [
  {
    name: "LLaVA-1.5-7B",
    pattern: /llava-1\.5-7b/i,
    layer: 15,
    accuracies: {
      random: 0.14,
      noContext: 0,
      textPrompt: 0.18,
      textPatch: 0.32,
      llmPatch: 0.37,
      textToText: 0.59,
    },
  },
  {
    name: "Mantis-8B-Fuyu",
    pattern: /mantis-8b.*fuyu/i,
    layer: 23,
    accuracies: {
      random: 0.14,
      textPrompt: 0.09,
      textPatch: 0.31,
      imagePrompt: 0.18,
      imagePatch: 0.2,
      textToText: 0.34,
      imageToText: 0.25,
    },
  },
  {
    name: "Idefics2-8B",
    pattern: /idefics2-8b/i,
    layer: 16,
    accuracies: {
      random: 0.14,
      textPrompt: 0.18,
      textPatch: 0.51,
      imagePrompt: 0.43,
      imagePatch: 0.31,
      llmPatch: 0.52,
      textToText: 0.65,
      imageToText: 0.42,
    },
  },
];

export interface PaperRow {
  readonly setup: string;
  readonly accuracy: number;
}

/** What the paper reports of a model, by its name; undefined where it is none of the paper's. */
export function paperRows(model: string): readonly PaperRow[] | undefined {
  const found = PAPER.find(({ pattern }) => pattern.test(model));
  if (!found) return undefined;
  return (Object.keys(PAPER_SETUPS) as PaperSetup[]).flatMap((setup) => {
    const accuracy = found.accuracies[setup];
    const layer = setup === "textPatch" ? ` (layer ${found.layer})` : "";
    return accuracy === undefined ? [] : [{ setup: `${PAPER_SETUPS[setup]}${layer}`, accuracy }];
  });
}

/**
 * The paper's table, a column a model, with this run beside it: the setups of `ours`, in the paper's order. For runs under the
 * paper's protocol.
 */
export function paperTable(
  { setting: { model } }: Lab,
  ours: Readonly<Partial<Record<PaperSetup, TableCell>>>,
  layer: TableCell,
): Table {
  const setups = (Object.keys(PAPER_SETUPS) as PaperSetup[]).filter((setup) => setup in ours);
  return {
    name: "paper",
    title: `The paper's protocol: mean over its six tasks. The paper's models on its data, in 4-bit NF4; here in ${model.dtypes.join(" and ")}, as xpatch has no 4-bit weights yet`,
    columns: ["setup", ...PAPER.map(({ name }) => `paper: ${name}`), `here: ${model.name}`],
    rows: [
      ["layer of the text patch", ...PAPER.map((paper) => paper.layer), layer],
      ...setups.map((setup) => [
        PAPER_SETUPS[setup],
        ...PAPER.map(({ accuracies }) => accuracies[setup] ?? "–"),
        ours[setup]!,
      ]),
    ],
  };
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
