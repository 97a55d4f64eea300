import type { TaskSummary } from "../../../src/session/messages/results.ts";
import type { ExplorerDocument } from "../document/document.ts";
import type { Slice } from "../document/slice.ts";
import { pictureKey, pictureName } from "../pictures/picture-ref.ts";
import { isEmpty, type PromptDoc, promptInWords } from "../prompts/prompt-doc.ts";
import { mixOf } from "../vectors/mix.ts";
import type { Patch } from "../vectors/patched.ts";
import { contextInWords, queryOf } from "../vectors/query.ts";
import { SHELF } from "../vectors/shelf.ts";
import { type LensEdit, lensSlice } from "../views/lens/lens-slice.ts";
import { promptSlice } from "../views/prompt/prompt-slice.ts";
import { SEE } from "../views/see/see-slice.ts";
import { VECTORS } from "../views/vectors/vectors-slice.ts";

/** Something that a state of the page asks the model: plain data, from which it is asked, compared, and written as code. */
export interface Question {
  /** All that tells it from the others of the state. */
  readonly label: string;
  /** The same in another state where only how much, or in which layer, is another. */
  readonly thing: string;
  readonly prompt: PromptDoc;
  /** A vector at the last token. */
  readonly patch?: Patch;
  /** What was put from another prompt. */
  readonly lens?: { readonly source: PromptDoc; readonly edits: readonly LensEdit[] };
}

/** What is asked on the view that a document shows. */
export function questionsOf(document: ExplorerDocument, tasks: readonly TaskSummary[]): Question[] {
  switch (document.view) {
    case "lens":
      return ofLens(document);
    case "vectors":
      return ofVectors(document, tasks);
    case "see":
      return ofPrompt(partOf(document, SEE).prompt);
    case "prompt":
      return ofPrompt(partOf(document, promptSlice).prompt);
    default:
      return [];
  }
}

/** A slice's value in a document, its initial one where it has none. */
export function partOf<T>(
  document: ExplorerDocument,
  slice: Pick<Slice, "name"> & { readonly initial: T },
): T {
  return (document.slices[slice.name] as T | undefined) ?? slice.initial;
}

function ofPrompt(prompt: PromptDoc): Question[] {
  return isEmpty(prompt) ? [] : [{ label: promptInWords(prompt), thing: "the prompt", prompt }];
}

function ofLens(document: ExplorerDocument): Question[] {
  const { source, target, edits } = partOf(document, lensSlice);
  const plain = ofPrompt(target);
  const on = edits.filter((edit) => edit.on);
  if (plain.length === 0 || on.length === 0) return plain;
  if (isEmpty(source) && on.some((edit) => edit.from)) return plain;
  const label = `${plain[0]!.label} with ${on.length === 1 ? "the edit" : `${on.length} edits`}`;
  return [
    ...plain,
    { label, thing: "the prompt with its edits", prompt: target, lens: { source, edits: on } },
  ];
}

function ofVectors(document: ExplorerDocument, tasks: readonly TaskSummary[]): Question[] {
  const { pictures, context, drops, mix } = partOf(document, VECTORS);
  const { vectors } = partOf(document, SHELF);
  const where = context.specify === "none" ? "" : `, ${contextInWords(context)}`;
  const named = (id: string) => vectors.find((each) => each.id === id);
  return pictures.flatMap((picture) => {
    let prompt: PromptDoc;
    try {
      prompt = queryOf(picture, context, tasks);
    } catch {
      return []; // the page says so at the picture
    }
    const key = pictureKey(picture);
    const thing = pictureName(picture);
    const label = `${thing}${where}`;
    const patched = drops.flatMap((drop): Question[] => {
      const vector = drop.picture === key ? named(drop.vector) : undefined;
      if (!vector) return [];
      const { name, recipe, layer } = vector;
      return [
        {
          label: `${label} + ${name} in layer ${layer}`,
          thing: `${thing} + ${name}`,
          prompt,
          patch: { recipe, layer },
        },
      ];
    });
    const [first, second] = mix?.picture === key ? [named(mix.first), named(mix.second)] : [];
    if (mix && first && second) {
      const { amount } = mix;
      patched.push({
        label: `${label} + ${first.name} and ${second.name} mixed ${amount}`,
        thing: `${thing} + the mix`,
        prompt,
        patch: { recipe: mixOf(first.recipe, second.recipe, amount), layer: first.layer },
      });
    }
    return [{ label, thing, prompt }, ...patched];
  });
}
