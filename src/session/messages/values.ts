import type { Blob } from "../../platform/global-types.ts";

/*
 * What requests are made of: prompts, pictures, positions, taps and edits as plain data, which a structured clone or a
 * WebSocket carries. They say what their namesakes in the library say, with handles where those hold objects.
 */

/** Handles stand for what the host keeps for a client; to other clients they mean nothing. `free` gives them back. */
export type ModelHandle = `model:${string}`;
/** A prompt that `encode` has made. */
export type PromptHandle = `prompt:${string}`;
/** A picture that `picture` has kept. */
export type PictureHandle = `picture:${string}`;
/** A pass that `record` has kept. */
export type RecordingHandle = `recording:${string}`;
/** A vector that `vector.make`, `vector.mix` or `vector.load` has kept. */
export type VectorHandle = `vector:${string}`;
/** Any handle. */
export type Handle = ModelHandle | PromptHandle | PictureHandle | RecordingHandle | VectorHandle;

/** 8-bit pixels, row by row: three bytes each (RGB), or four (RGBA, laid over white). */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array | Uint8ClampedArray;
}

/** The picture of a task's item. */
export interface TaskPicture {
  readonly task: TaskRef;
  readonly input: string;
}

/**
 * A picture: the bytes of a PNG, JPEG or WebP file, pixels, one that `picture` has been told of (which saves sending it again), or
 * that of a task's item. Never a path or URL: the host reads no file because a client names it.
 */
export type PictureSpec = Uint8Array | Blob | Pixels | PictureHandle | TaskPicture;

/** Text, text whose tokens get a name in `spans`, or a picture. */
export type PartSpec =
  | string
  | { readonly text: string; readonly name: string }
  | { readonly image: PictureSpec };

/** A turn of a conversation; as `ChatMessage` of the library. */
export interface MessageSpec {
  readonly role: string;
  readonly content:
    | string
    | readonly (
        | { readonly type: "text"; readonly text: string }
        | { readonly type: "image"; readonly image: PictureSpec }
      )[];
}

/** A question as text or as a picture. */
export type QuestionSpec = string | { readonly image: PictureSpec };

/** Which items of a task. */
export type SplitName = "train" | "validation" | "test";

/** A task that comes with xpatch by its name, or one of the client's own. */
export type TaskRef = string | TaskSpec;

/** A task of the client's own; as `Task` of the library. */
export interface TaskSpec {
  readonly name: string;
  /** The task in words. */
  readonly instruction?: string;
  readonly items: readonly TaskItemSpec[];
}

/** An item of a task of the client's own. */
export interface TaskItemSpec {
  readonly input: string;
  /** Right answers, at least one. */
  readonly outputs: readonly string[];
  /** Default: by the hash of the input, as in task files. */
  readonly split?: SplitName;
  readonly image?: PictureSpec;
}

/** What tells the model the task: examples asked about as text or as pictures, the instruction, or nothing at all. */
export interface SpecifySpec {
  readonly kind: "text" | "image" | "instruction" | "none";
  /** Examples. Default 5. */
  readonly count?: number;
  readonly seed?: number;
  readonly template?: string;
}

/** A prompt as it is to be made; see `model.prompt`, `chat`, `promptFromIds`, `fewShotPrompt` and `promptInContext`. */
export type PromptSpec =
  | { readonly parts: string | readonly PartSpec[]; readonly bos?: boolean; readonly answer?: string }
  | {
      readonly chat: readonly MessageSpec[];
      readonly bos?: boolean | "auto";
      readonly addGenerationPrompt?: boolean;
      readonly continueFinalMessage?: boolean | string;
    }
  | {
      readonly ids: readonly number[];
      readonly images?: readonly PictureSpec[];
      readonly answer?: readonly number[];
    }
  | {
      readonly question: QuestionSpec;
      readonly examples?: readonly { readonly question: QuestionSpec; readonly answer: string }[];
      readonly instruction?: string;
      readonly template?: string;
    }
  | {
      readonly task: TaskRef;
      /** The item that is asked about. */
      readonly input: string;
      /** Whether it is asked about by name or by its picture. Default text. */
      readonly asked?: "text" | "image";
      /** Default: no examples. Those drawn are of the item's own split. */
      readonly specify?: SpecifySpec;
    };

/** A prompt that `encode` has made, or one to make. */
export type PromptRef = PromptHandle | PromptSpec;

/** Positions `start` up to but not including `end`. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** As `Positions`, without functions. */
export type PositionsSpec = number | readonly number[] | Range | { readonly span: string } | "all";

/** Part of a site's rows. */
export interface PartOfRows {
  readonly head?: number;
  readonly features?: Range;
  /** At sites of pictures: which one. */
  readonly image?: number;
}

/** As `Tap`: one site, or several by names and patterns (`resid_post.*`). */
export interface TapSpec extends PartOfRows {
  readonly site: string | readonly string[];
  /** Default all. */
  readonly at?: PositionsSpec;
}

/** What an edit does; named as the functions of the library that make edits. */
export type OperationName = "set" | "add" | "scale" | "zero" | "interpolate" | "projectOut" | "projectOnto";

/** A vector that the host keeps; of one that has a vector a layer, that of the edit's own layer unless another is named. */
export interface VectorUse {
  readonly vector: VectorHandle;
  readonly layer?: number;
}

/** Numbers for each edited position alike, or with `shape` [positions, features] for each its own; or a kept vector. */
export type ValueSpec = Float32Array | readonly number[] | ArraySpec | VectorUse;

/** Numbers with a shape, row by row. */
export interface ArraySpec {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** As `Edit`, plain data. */
export interface EditSpec extends PartOfRows {
  readonly operation: OperationName;
  readonly site: string;
  readonly at: PositionsSpec;
  readonly value?: ValueSpec;
  readonly amount?: number;
}

/** An edit of each of several layers in turn: `site` without a layer, as `resid_post`. */
export interface LayerEditSpec extends Omit<EditSpec, "site"> {
  readonly site: string;
}

/** What a file of a dropped folder is, by its path in it. */
export type FileMap = Readonly<Record<string, Blob | Uint8Array>>;
