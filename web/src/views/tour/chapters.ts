import type { ExplorerDocument } from "../../document/document.ts";
import type { Json } from "../../document/read.ts";
import { partOf } from "../../keep/questions.ts";
import { type PictureRef, pictureKey } from "../../pictures/picture-ref.ts";
import { NO_CONTEXT } from "../../vectors/query.ts";
import type { Recipe } from "../../vectors/recipe.ts";
import { firstLayer, SHELF, type Shelf, type ShelfVector, withVector } from "../../vectors/shelf.ts";
import { SEE, type SeeSlice } from "../see/see-slice.ts";
import { VECTORS, type VectorsSlice, withDrop } from "../vectors/vectors-slice.ts";

/** A step: what is to be read, and what it does to the page. Nothing in it says what the model answers; that is computed and shown. */
export interface Step {
  readonly title: string;
  readonly words: string;
  readonly view: string;
  /** The panel to look at, by its title. */
  readonly panel: string;
  /** What the button says; a step without one is only read. */
  readonly doing?: string;
  /** The document after it; the same where it has been done. `layers` are the model's. */
  readonly change?: (document: ExplorerDocument, layers: number) => ExplorerDocument;
}

export interface Chapter {
  readonly title: string;
  readonly words: string;
  readonly steps: readonly Step[];
}

const FLAGS: readonly PictureRef[] = ["Poland", "Egypt", "Denmark"].map((input) => ({
  kind: "task",
  task: "country-capital",
  input,
}));
const FIRST = pictureKey(FLAGS[0]!);

/** Few prompts, so that a step takes seconds without a GPU too. */
const examples = (task: string): Recipe => ({
  kind: "examples",
  task,
  asked: "text",
  count: 5,
  seed: 0,
  items: 3,
});
const CAPITAL = { name: "capital", recipe: examples("country-capital") };
const LANGUAGE = { name: "language", recipe: examples("country-language") };
const IN_WORDS = {
  name: "capital, in words",
  recipe: { kind: "instruction", text: "The capital city of the country:" },
} as const;

export const CHAPTERS: readonly Chapter[] = [
  {
    title: "A task, from words onto a picture",
    words: "What a model has understood of a few examples in words is put into a question about a picture.",
    steps: [
      {
        title: "A question that asks for nothing",
        words:
          "Three flags. Of each the model is asked “Q: [the flag] A:”, and nobody has said what is wanted. The first line under a flag is what it would say next.",
        view: "vectors",
        panel: "Pictures",
        doing: "Lay the flags out",
        change: (document) =>
          withVectors(document, (slice) => ({ ...slice, pictures: FLAGS, drops: [], context: NO_CONTEXT })),
      },
      {
        title: "The task, told in words",
        words:
          "Now the model reads three prompts, each with five countries and their capitals. There is no picture in any of them. At the token before an answer, what its layers hold has to say “the capital is wanted”: the mean over the prompts, a vector a layer, is a task vector.",
        view: "vectors",
        panel: "Shelf",
        doing: "Make the vector",
        change: (document, layers) => shelved(document, CAPITAL, layers).document,
      },
      {
        title: "Onto the pictures",
        words:
          "The vector replaces what one layer holds at the last token of each question: nothing else changes, and no example is shown. Compare the lines: the first is without the vector, the one with its letter is with it. A tick stands where the answer is right.",
        view: "vectors",
        panel: "Pictures",
        doing: "Drop it on the flags",
        change: (document, layers) => dropped(document, CAPITAL, layers),
      },
      {
        title: "Another task, the same pictures",
        words:
          "A vector of the languages of countries, made alike. The same flags, the same question; only the vector is another.",
        view: "vectors",
        panel: "Pictures",
        doing: "Switch the task",
        change: (document, layers) => dropped(document, LANGUAGE, layers),
      },
      {
        title: "And an instruction?",
        words:
          "No examples at all: the vector is what the model holds at the end of “The capital city of the country:”. Does it lead to the same place as the examples? Look at its answers, and at the tokens behind them.",
        view: "vectors",
        panel: "Pictures",
        doing: "Put the instruction on",
        change: (document, layers) => dropped(document, IN_WORDS, layers),
      },
      {
        title: "Yours now",
        words:
          "Drag vectors from the shelf, add pictures of your own, put examples of another task before the question. Every step can be undone, and the link above holds all of it.",
        view: "vectors",
        panel: "Shelf",
      },
    ],
  },
  {
    title: "Where in the model the task lives",
    words: "The same vector in every layer, and what the layers themselves have to say.",
    steps: [
      {
        title: "All layers at once",
        words:
          "The vector of each layer is put into that layer, one layer at a time, all from one recorded pass. The bars are the probability of the right answer, the words below what would be said. The task is not everywhere: look for where it works.",
        view: "vectors",
        panel: "By layer",
        doing: "Try every layer",
        change: (document, layers) => swept(document, layers, "picture"),
      },
      {
        title: "Not just one flag",
        words:
          "The same over several flags that no vector has seen: how often the answer is right, by layer. The dashed line is without a vector. Choose a bar, and the flags above are answered with that layer.",
        view: "vectors",
        panel: "By layer",
        doing: "Count right answers",
        change: (document, layers) => swept(document, layers, "accuracy"),
      },
      {
        title: "Where the answer looks",
        words:
          "For the last token to name the country it has to read the picture. Each tile is a layer: the brighter a patch, the more attention it gets; below it, the share that the picture has of all attention.",
        view: "see",
        panel: "Attention",
        doing: "See the attention",
        change: (document) => seen(document, { tab: "attention", mode: "layers", at: -1 }),
      },
      {
        title: "What the patches say",
        words:
          "Each patch of the picture, read as if it were about to be answered. Move the slider: in which layers do patches begin to speak in words?",
        view: "see",
        panel: "Words of patches",
        doing: "Read the patches",
        change: (document) => seen(document, { tab: "lens" }),
      },
      {
        title: "Tasks have places",
        words:
          "A dot for each of some prompts: two tasks, told and asked in words (●) or with pictures (■). If the model keeps a task apart from the way it is told, dots lie together by colour, not by shape.",
        view: "see",
        panel: "Vectors on a plane",
        doing: "Draw them",
        change: (document, layers) => {
          const plane = {
            tasks: ["country-capital", "food-color"],
            text: true,
            image: true,
            items: 3,
            count: 2,
            layer: firstLayer(layers),
            method: "pca",
            seed: 0,
          } as const;
          return seen(document, { tab: "plane", plane, shown: plane });
        },
      },
      {
        title: "Take it with you",
        words:
          "“Copy as code” above writes a program that prints what you see, for a notebook or a paper; each panel saves its figure and its numbers. History compares any two steps of this tour.",
        view: "see",
        panel: "Vectors on a plane",
      },
    ],
  },
];

type Named = { readonly name: string; readonly recipe: Recipe };

function withSlice<T extends Json>(document: ExplorerDocument, name: string, value: T): ExplorerDocument {
  return { ...document, slices: { ...document.slices, [name]: value } };
}

function withVectors(
  document: ExplorerDocument,
  change: (slice: VectorsSlice) => VectorsSlice,
): ExplorerDocument {
  return withSlice(document, VECTORS.name, change(partOf(document, VECTORS)));
}

/** With the vector on the shelf: the one that is there, if there is one of this recipe. */
function shelved(
  document: ExplorerDocument,
  { name, recipe }: Named,
  layers: number,
): { readonly document: ExplorerDocument; readonly vector: ShelfVector } {
  const shelf: Shelf = partOf(document, SHELF);
  const text = JSON.stringify(recipe);
  const known = shelf.vectors.find((each) => JSON.stringify(each.recipe) === text);
  if (known) return { document, vector: known };
  const made = withVector(shelf, { name, recipe, layer: firstLayer(layers) });
  return {
    document: withSlice(document, SHELF.name, made.shelf),
    vector: made.shelf.vectors.find(({ id }) => id === made.id)!,
  };
}

/** With the vector on the tour's flags. */
function dropped(before: ExplorerDocument, named: Named, layers: number): ExplorerDocument {
  const { document, vector } = shelved(before, named, layers);
  return withVectors(document, (slice) =>
    FLAGS.reduce<VectorsSlice>(
      (after, flag) => withDrop(after, { vector: vector.id, picture: pictureKey(flag) }),
      {
        ...slice,
        pictures: [
          ...FLAGS,
          ...slice.pictures.filter((each) => !FLAGS.some((flag) => pictureKey(flag) === pictureKey(each))),
        ],
      },
    ),
  );
}

function swept(before: ExplorerDocument, layers: number, measure: "accuracy" | "picture"): ExplorerDocument {
  const document = dropped(before, CAPITAL, layers);
  const { vector } = shelved(document, CAPITAL, layers);
  return withVectors(document, (slice) => ({
    ...slice,
    sweep: {
      vector: vector.id,
      measure,
      task: "country-capital",
      asked: "image",
      items: 8,
      picture: FIRST,
    },
  }));
}

function seen(document: ExplorerDocument, part: Partial<SeeSlice>): ExplorerDocument {
  const slice = partOf(document, SEE);
  const prompt = {
    kind: "task",
    task: "country-capital",
    input: "Poland",
    asked: "image",
    specify: "none",
    count: 5,
    seed: 0,
  } as const;
  return withSlice(document, SEE.name, { ...slice, prompt, ...part });
}

/** Whether a step's change has been made. */
export function isDone(step: Step, document: ExplorerDocument, layers: number): boolean {
  return (
    step.change !== undefined && JSON.stringify(step.change(document, layers)) === JSON.stringify(document)
  );
}
