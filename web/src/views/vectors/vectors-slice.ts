import {
  readCount,
  readFields,
  readList,
  readNumber,
  readOneOf,
  readOptional,
  readString,
} from "../../document/read.ts";
import { defineSlice } from "../../document/slice.ts";
import { type PictureRef, pictureKey, readPictureRef } from "../../pictures/picture-ref.ts";
import { type Context, NO_CONTEXT, readContext } from "../../vectors/query.ts";
import { ASKED } from "../../vectors/recipe.ts";

/** A vector of the shelf put into the question about a picture. */
export type Drop = { readonly vector: string; readonly picture: string };

/** What the form for a new vector says. */
export type Maker = {
  readonly kind: "examples" | "instruction";
  readonly task: string;
  readonly asked: "text" | "image";
  readonly count: number;
  readonly seed: number;
  readonly items: number;
  readonly text: string;
};

/** Two vectors and how much of the second there is in their mix. */
export type Mix = {
  readonly first: string;
  readonly second: string;
  readonly amount: number;
  readonly picture: string;
};

export type Sweep = {
  readonly vector: string;
  /** `accuracy` over the items of a task, or what one picture's question is answered with. */
  readonly measure: "accuracy" | "picture";
  readonly task: string;
  readonly asked: "text" | "image";
  readonly items: number;
  readonly picture: string;
};

export type VectorsSlice = {
  readonly maker: Maker;
  readonly pictures: readonly PictureRef[];
  readonly context: Context;
  readonly drops: readonly Drop[];
  readonly mix?: Mix;
  readonly sweep?: Sweep;
};

const MOST_PICTURES = 24;
const MEASURES = ["accuracy", "picture"] as const;

/** What the view Task vectors keeps in the document, beside the shelf. */
export const VECTORS = defineSlice<VectorsSlice>({
  name: "vectors",
  initial: {
    maker: {
      kind: "examples",
      task: "country-capital",
      asked: "text",
      count: 5,
      seed: 0,
      items: 8,
      text: "The capital city of the country:",
    },
    pictures: ["Poland", "Egypt", "Denmark"].map((input) => ({
      kind: "task",
      task: "country-capital",
      input,
    })),
    context: NO_CONTEXT,
    drops: [],
  },
  read(value, at) {
    const fields = readFields(value, at, ["maker", "pictures", "context", "drops", "mix", "sweep"]);
    const mix = readOptional(fields["mix"], `${at}.mix`, readMix);
    const sweep = readOptional(fields["sweep"], `${at}.sweep`, readSweep);
    return {
      maker: readMaker(fields["maker"], `${at}.maker`),
      pictures: readList(fields["pictures"], `${at}.pictures`, readPictureRef, MOST_PICTURES),
      context: readContext(fields["context"], `${at}.context`),
      drops: readList(fields["drops"], `${at}.drops`, readDrop, 1000),
      ...(mix && { mix }),
      ...(sweep && { sweep }),
    };
  },
});

function readMaker(value: unknown, at: string): Maker {
  const fields = readFields(value, at, ["kind", "task", "asked", "count", "seed", "items", "text"]);
  return {
    kind: readOneOf(fields["kind"], `${at}.kind`, ["examples", "instruction"]),
    task: readString(fields["task"], `${at}.task`, 100),
    asked: readOneOf(fields["asked"], `${at}.asked`, ASKED),
    count: readCount(fields["count"], `${at}.count`, 50),
    seed: readCount(fields["seed"], `${at}.seed`, 2 ** 31),
    items: readCount(fields["items"], `${at}.items`, 1000),
    text: readString(fields["text"], `${at}.text`, 5000),
  };
}

function readDrop(value: unknown, at: string): Drop {
  const fields = readFields(value, at, ["vector", "picture"]);
  return {
    vector: readString(fields["vector"], `${at}.vector`, 20),
    picture: readString(fields["picture"], `${at}.picture`, 400),
  };
}

function readMix(value: unknown, at: string): Mix {
  const fields = readFields(value, at, ["first", "second", "amount", "picture"]);
  return {
    first: readString(fields["first"], `${at}.first`, 20),
    second: readString(fields["second"], `${at}.second`, 20),
    amount: readNumber(fields["amount"], `${at}.amount`, [0, 1]),
    picture: readString(fields["picture"], `${at}.picture`, 400),
  };
}

function readSweep(value: unknown, at: string): Sweep {
  const fields = readFields(value, at, ["vector", "measure", "task", "asked", "items", "picture"]);
  return {
    vector: readString(fields["vector"], `${at}.vector`, 20),
    measure: readOneOf(fields["measure"], `${at}.measure`, MEASURES),
    task: readString(fields["task"], `${at}.task`, 100),
    asked: readOneOf(fields["asked"], `${at}.asked`, ASKED),
    items: readCount(fields["items"], `${at}.items`, 1000),
    picture: readString(fields["picture"], `${at}.picture`, 400),
  };
}

/** With a vector dropped on a picture; once is enough. */
export function withDrop(slice: VectorsSlice, drop: Drop): VectorsSlice {
  if (slice.drops.some((each) => sameDrop(each, drop))) return slice;
  return { ...slice, drops: [...slice.drops, drop] };
}

export function withoutDrop(slice: VectorsSlice, drop: Drop): VectorsSlice {
  return { ...slice, drops: slice.drops.filter((each) => !sameDrop(each, drop)) };
}

function sameDrop(a: Drop, b: Drop): boolean {
  return a.vector === b.vector && a.picture === b.picture;
}

export function withPicture(slice: VectorsSlice, picture: PictureRef): VectorsSlice {
  const key = pictureKey(picture);
  if (slice.pictures.some((each) => pictureKey(each) === key)) return slice;
  if (slice.pictures.length >= MOST_PICTURES)
    throw new Error(`there are ${MOST_PICTURES} pictures; take one away first`);
  return { ...slice, pictures: [...slice.pictures, picture] };
}

/** Without all that was done with a vector. */
export function withoutUses({ mix, sweep, ...slice }: VectorsSlice, vector: string): VectorsSlice {
  const isMixed = mix?.first === vector || mix?.second === vector;
  return {
    ...slice,
    drops: slice.drops.filter((drop) => drop.vector !== vector),
    ...(mix && !isMixed && { mix }),
    ...(sweep && sweep.vector !== vector && { sweep }),
  };
}

/** Without a picture, and all that was dropped on it. */
export function withoutPicture(slice: VectorsSlice, key: string): VectorsSlice {
  return {
    ...slice,
    pictures: slice.pictures.filter((each) => pictureKey(each) !== key),
    drops: slice.drops.filter((drop) => drop.picture !== key),
  };
}
