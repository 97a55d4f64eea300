import { extractActivations, fewShotPrompt, type Prompt, type PromptImage } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { AskedSplit, Lab } from "../framework/lab.ts";
import { kernelAlignment } from "../statistics/cka.ts";
import type { Permuted } from "../statistics/permutation.ts";
import { centred, type Points, randomPointsLike } from "../statistics/points.ts";
import { sample } from "../statistics/random.ts";
import { mean } from "../statistics/resample.ts";
import { retrievalRanks } from "../statistics/retrieval.ts";
import { representationalSimilarity } from "../statistics/rsa.ts";
import { cosine } from "../statistics/vectors.ts";
import { OTHER_TEMPLATE, rowsOf } from "./task-vectors.ts";

/**
 * Where the two modalities are compared: behind the name and the picture, and at the answer cue; there also with names
 * that are asked about by another template.
 */
export const PLACES = ["name", "cue", "other cue"] as const;
export type Place = (typeof PLACES)[number];

/** Ranks, from 1, of each picture's name among all names, and of each name's picture among all pictures. */
export interface Ranks {
  readonly names: readonly number[];
  readonly pictures: readonly number[];
}

export interface LayerAlignment {
  /** By cosine of the vectors as they are. */
  readonly raw: Ranks;
  /** By cosine of the vectors less the mean of their modality. */
  readonly centred: Ranks;
  /** The centred pictures against Gaussian vectors of the names' norms. */
  readonly random: Ranks;
  /** Mean cosine, as they are, of a picture with its own name and with the others. */
  readonly rightCosine: number;
  readonly wrongCosine: number;
  readonly rsa: Permuted;
  readonly cka: Permuted;
  /**
   * The same values beside those of pairs with the names of another task's items, at random: in their files both stand in
   * alphabetical order. Of as many items as both have; absent where the lab has no other items.
   */
  readonly foreign?: { readonly rsa: Permuted; readonly cka: Permuted };
}

export interface AlignmentResult {
  readonly items: number;
  /** `places[place][layer]` */
  readonly places: Readonly<Record<Place, readonly LayerAlignment[]>>;
}

/** How bare questions about items as pictures and as names correspond, item by item, in every layer. */
export const alignment = defineCell(
  "alignment",
  async (
    lab,
    { task, other, split }: { task: string; other: string; split: AskedSplit },
  ): Promise<AlignmentResult> => {
    const pictures = await picturesOf(lab, task, split);
    const names = await namesOf(lab, task, split);
    const strangers = other === "" ? undefined : await namesOf(lab, other, split);
    const compare = (place: Place) => {
      const shown = pictures[place === "name" ? "name" : "cue"];
      return shown.map((points, layer) =>
        compared(points, names[place][layer]!, layer, strangers?.[place][layer]),
      );
    };
    return {
      items: pictures.cue[0]!.length,
      places: { name: compare("name"), cue: compare("cue"), "other cue": compare("other cue") },
    };
  },
);

/** `[layer][item]` */
type States = readonly Points[];

async function picturesOf(
  lab: Lab,
  name: string,
  split: AskedSplit,
): Promise<Record<"name" | "cue", States>> {
  const task = lab.task(name);
  const ask = await lab.asker(task, split, "image");
  const prompts = lab
    .items(task, split)
    .map((item) => fewShotPrompt(lab.model, [], ask(item), lab.options.template));
  return {
    name: await statesAt(lab, prompts, (prompt) => prompt.span("image").end - 1),
    cue: await statesAt(lab, prompts, (prompt) => prompt.last),
  };
}

async function namesOf(lab: Lab, name: string, split: AskedSplit): Promise<Record<Place, States>> {
  const items = lab.items(lab.task(name), split);
  const ask = (template: string) => items.map(({ input }) => nameQuery(lab, input, template));
  const usual = ask(lab.options.template);
  return {
    name: await statesAt(lab, usual, (prompt) => prompt.span("name").end - 1),
    cue: await statesAt(lab, usual, (prompt) => prompt.last),
    "other cue": await statesAt(lab, ask(OTHER_TEMPLATE), (prompt) => prompt.last),
  };
}

/** The bare question, with the name as a span. */
function nameQuery({ model }: Lab, input: string, template: string): Prompt<PromptImage> {
  const [before = "", rest = ""] = template.split("{x}");
  return model.prompt([before, { text: input, name: "name" }, rest.split("{y}")[0]!.trimEnd()]);
}

async function statesAt(
  lab: Lab,
  prompts: readonly Prompt[],
  at: (prompt: Prompt) => number,
): Promise<States> {
  const { model } = lab;
  const { layers, width } = lab;
  using activations = extractActivations(model, prompts, { site: lab.stream, at });
  lab.spendPasses(prompts, model);
  const rows = await rowsOf(activations.reshape([prompts.length * layers, width]));
  return Array.from({ length: layers }, (_, layer) => prompts.map((_, i) => rows[i * layers + layer]!));
}

function compared(pictures: Points, names: Points, seed: number, strangers?: Points): LayerAlignment {
  const [shown, named] = [centred(pictures), centred(names)];
  const own = similarity(pictures, names);
  const wrong = pictures.flatMap((a, i) => names.filter((_, j) => j !== i).map((b) => cosine(a, b)));
  return {
    raw: ranksOf(pictures, names),
    centred: ranksOf(shown, named),
    random: ranksOf(shown, randomPointsLike(named, seed)),
    rightCosine: mean(pictures.map((a, i) => cosine(a, names[i]!))),
    wrongCosine: mean(wrong),
    ...own,
    ...(strangers && { foreign: amongStrangers(pictures, names, strangers, own) }),
  };
}

function ranksOf(pictures: Points, names: Points): Ranks {
  return { names: retrievalRanks(pictures, names), pictures: retrievalRanks(names, pictures) };
}

interface Similarity {
  readonly rsa: Permuted;
  readonly cka: Permuted;
}

function similarity(a: Points, b: Points, actual?: Similarity): Similarity {
  return {
    rsa: representationalSimilarity(a, b, actual?.rsa.value),
    cka: kernelAlignment(a, b, actual?.cka.value),
  };
}

function amongStrangers(pictures: Points, names: Points, strangers: Points, own: Similarity): Similarity {
  if (pictures.length <= strangers.length) {
    return similarity(pictures, sample(strangers, pictures.length), own);
  }
  const some = sample([...pictures.keys()], strangers.length);
  const [shown, named] = [pictures, names].map((points) => some.map((i) => points[i]!));
  return similarity(shown!, strangers, similarity(shown!, named!));
}
