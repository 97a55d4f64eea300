import {
  DocumentError,
  readCount,
  readFields,
  readList,
  readNumber,
  readOneOf,
  readOptional,
  readRecord,
  readString,
} from "../document/read.ts";
import { type PromptDoc, promptInWords, readPromptDoc } from "../prompts/prompt-doc.ts";

/* How a task vector is made, as the document has it: plain data that says all of it. Types, not interfaces, since those are no Json. */

/** The mean over prompts with examples, each about another item of the train split, at the last example's answer cue. */
export type ExamplesRecipe = {
  readonly kind: "examples";
  readonly task: string;
  /** Whether examples are names or pictures. */
  readonly asked: "text" | "image";
  /** Examples in a prompt. */
  readonly count: number;
  /** Which are drawn. */
  readonly seed: number;
  /** Most prompts. */
  readonly items: number;
};

/** Of the task in words: at their last token. */
export type InstructionRecipe = { readonly kind: "instruction"; readonly text: string };

/** A sum of others, each by its weight. */
export type MixRecipe = {
  readonly kind: "mix";
  readonly parts: readonly { readonly recipe: Recipe; readonly weight: number }[];
};

/** What a place of one prompt holds: one layer, or every layer of a site. */
export type PlaceRecipe = {
  readonly kind: "place";
  readonly prompt: PromptDoc;
  /** Without its layer: `resid_post`. */
  readonly site: string;
  readonly position: number;
  readonly layer?: number;
  /** One head alone; of one layer. */
  readonly head?: number;
};

/** Of a safetensors file that lies with the reader; told by its hash. */
export type FileRecipe = {
  readonly kind: "file";
  readonly hash: string;
  readonly name: string;
  /** The site, where the file holds a place and not a vector a layer: `resid_post.12`. */
  readonly place?: string;
};

export type Recipe = ExamplesRecipe | InstructionRecipe | MixRecipe | PlaceRecipe | FileRecipe;

export const ASKED = ["text", "image"] as const;
const KINDS = ["examples", "instruction", "mix", "place", "file"] as const;

/** Most mixes within mixes, and parts of one. */
const MOST_DEEP = 6;
const MOST_PARTS = 16;

/** On one line: "country-capital, 5 text examples × 12 prompts, seed 0". */
export function recipeInWords(recipe: Recipe): string {
  switch (recipe.kind) {
    case "examples": {
      const { task, asked, count, seed, items } = recipe;
      const examples = asked === "image" ? "picture examples" : "text examples";
      return `${task}, ${count} ${examples} in each of ${items} prompts, seed ${seed}`;
    }
    case "instruction":
      return `instruction “${recipe.text}”`;
    case "mix":
      return recipe.parts
        .map((part) => `${round(part.weight)} × (${recipeInWords(part.recipe)})`)
        .join(" + ");
    case "place":
      return `${siteOf(recipe)} at position ${recipe.position} of ${promptInWords(recipe.prompt)}`;
    case "file":
      return `file ${recipe.name}`;
  }
}

function siteOf({ site, layer, head }: PlaceRecipe): string {
  const where = layer === undefined ? `${site}, each layer,` : `${site}.${layer}`;
  return head === undefined ? where : `${where}, head ${head},`;
}

/** A name to begin with. */
export function recipeName(recipe: Recipe): string {
  switch (recipe.kind) {
    case "examples":
      return recipe.asked === "image" ? `${recipe.task} by pictures` : `${recipe.task} by text`;
    case "instruction":
      return recipe.text.replace(/:\s*$/, "").slice(0, 40);
    case "mix":
      return "mix";
    case "place":
      return `${recipe.layer === undefined ? recipe.site : `${recipe.site}.${recipe.layer}`} at ${recipe.position}`;
    case "file":
      return recipe.name.replace(/\.safetensors$/, "");
  }
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** Where a vector of one place was read; undefined for recipes with a vector a layer. */
export function placeOf(recipe: Recipe): { readonly site: string; readonly head?: number } | undefined {
  switch (recipe.kind) {
    case "place": {
      const { site, layer, head } = recipe;
      return layer === undefined ? undefined : { site, ...(head !== undefined && { head }) };
    }
    case "file": {
      const [, site, head] = /^(.*?)\.\d+(?:, head (\d+))?$/.exec(recipe.place ?? "") ?? [];
      return site === undefined ? undefined : { site, ...(head !== undefined && { head: Number(head) }) };
    }
    case "mix":
      return placeOf(recipe.parts[0]!.recipe);
    default:
      return undefined;
  }
}

/** The task that a recipe is of; undefined where it is of none, or of several. */
export function taskOf(recipe: Recipe): string | undefined {
  if (recipe.kind === "examples") return recipe.task;
  if (recipe.kind !== "mix") return undefined;
  const tasks = new Set(recipe.parts.map((part) => taskOf(part.recipe)));
  return tasks.size === 1 ? [...tasks][0] : undefined;
}

export function readRecipe(value: unknown, at: string, depth = 0): Recipe {
  const kind = readOneOf(readRecord(value, at, (each) => each)["kind"], `${at}.kind`, KINDS);
  switch (kind) {
    case "examples": {
      const fields = readFields(value, at, ["kind", "task", "asked", "count", "seed", "items"]);
      return {
        kind,
        task: readString(fields["task"], `${at}.task`, 100),
        asked: readOneOf(fields["asked"], `${at}.asked`, ASKED),
        count: readCount(fields["count"], `${at}.count`, 50),
        seed: readCount(fields["seed"], `${at}.seed`, 2 ** 31),
        items: readCount(fields["items"], `${at}.items`, 1000),
      };
    }
    case "instruction":
      return { kind, text: readString(readFields(value, at, ["kind", "text"])["text"], `${at}.text`, 5000) };
    case "mix": {
      if (depth >= MOST_DEEP) throw new DocumentError(`${at}: more than ${MOST_DEEP} mixes in one another`);
      const parts = readList(
        readFields(value, at, ["kind", "parts"])["parts"],
        `${at}.parts`,
        (part, place) => {
          const fields = readFields(part, place, ["recipe", "weight"]);
          return {
            recipe: readRecipe(fields["recipe"], `${place}.recipe`, depth + 1),
            weight: readNumber(fields["weight"], `${place}.weight`, [-100, 100]),
          };
        },
        MOST_PARTS,
      );
      if (parts.length === 0) throw new DocumentError(`${at}.parts: expected at least one`);
      return { kind, parts };
    }
    case "place": {
      const fields = readFields(value, at, ["kind", "prompt", "site", "position", "layer", "head"]);
      const [layer, head] = ["layer", "head"].map((key) =>
        readOptional(fields[key], `${at}.${key}`, (each, place) => readCount(each, place, 10_000)),
      );
      if (head !== undefined && layer === undefined)
        throw new DocumentError(`${at}.head: expected a layer besides`);
      return {
        kind,
        prompt: readPromptDoc(fields["prompt"], `${at}.prompt`),
        site: readString(fields["site"], `${at}.site`, 60),
        position: readCount(fields["position"], `${at}.position`),
        ...(layer !== undefined && { layer }),
        ...(head !== undefined && { head }),
      };
    }
    case "file": {
      const fields = readFields(value, at, ["kind", "hash", "name", "place"]);
      const held = readOptional(fields["place"], `${at}.place`, (each, where) =>
        readString(each, where, 100),
      );
      const hash = readString(fields["hash"], `${at}.hash`, 64);
      if (!/^[0-9a-f]{64}$/.test(hash)) throw new DocumentError(`${at}.hash: expected 64 hexadecimal digits`);
      const name = readString(fields["name"], `${at}.name`, 200);
      return { kind, hash, name, ...(held !== undefined && { place: held }) };
    }
  }
}
