import type { Setting } from "../../patching/setting.ts";
import type {
  ArraySpec,
  ModelHandle,
  PromptHandle,
  RecordingHandle,
  SplitName,
  VectorHandle,
} from "./values.ts";

/* What requests are answered with. Every result with numbers in it states its setting: model, dtypes, adapter. */

/** What computes, for whoever reads a number. */
export interface AdapterSummary {
  /** For people: "llvmpipe (LLVM 19.1.7, 256 bits)". */
  readonly name: string;
  /** A software driver: right, but slow. */
  readonly software: boolean;
  readonly vendor: string;
  readonly architecture: string;
  readonly kernels: "register" | "workgroup";
  /** Bytes of tensors in use, weights included. */
  readonly bytes: number;
}

/** What a host says of itself. */
export interface HelloResult {
  readonly version: number;
  /** "xpatch 0.1.0". */
  readonly host: string;
  /** Where it runs: in a tab, in this process, or behind `xpatch serve`. */
  readonly place: "tab" | "process" | "server";
  readonly bounds: Bounds;
}

/** What a host takes of one client. */
export interface Bounds {
  /** Bytes of one message. */
  readonly messageBytes: number;
  /** Pixels of one picture. */
  readonly picturePixels: number;
  /** Bytes of unpacked pictures that are kept, by their own handles and in prompts. */
  readonly pictureBytes: number;
  /** Requests that are not answered yet. Their typed arrays have at most four times the bytes of a message. */
  readonly waiting: number;
  /** Handles kept. */
  readonly handles: number;
}

/** A model that the host offers. */
export interface OfferedModel {
  /** What `load` takes. */
  readonly ref: string;
  readonly label: string;
  /** Whether it is in the device's memory already, so that loading it costs nothing. */
  readonly loaded: boolean;
}

/** What can be loaded. */
export interface ModelsResult {
  readonly models: readonly OfferedModel[];
  /** Whether `load` takes other references too: folders, URLs, hub ids. */
  readonly anyRef: boolean;
  /** Whether `load` takes files as Blobs. */
  readonly files: boolean;
}

/** A site as the page needs it: its name (that of a layer's with `*` for the layer) and what a row of it holds. */
export interface SiteSummary {
  /** `embed`, `resid_post.*`, `vision.resid_post.*`. */
  readonly pattern: string;
  readonly stack: string;
  /** Layers that have it; absent outside the layers. */
  readonly layers?: readonly number[];
  /** Features of a row; absent for scores and patterns, whose features are keys. */
  readonly features?: number;
  readonly heads?: number;
  /** Whether its rows are positions of the prompt, rows of pictures, or of what an encoder reads. */
  readonly rows: "prompts" | "images" | "sources";
}

/** A loaded model: its handle, sizes and sites. */
export interface ModelSummary {
  readonly model: ModelHandle;
  readonly setting: Setting;
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly vocab: number;
  /** Most tokens of a prompt; absent where nothing bounds them. */
  readonly context?: number;
  readonly takesPictures: boolean;
  readonly hasChat: boolean;
  /** Whether an encoder reads the prompt: positions of what is computed are then the decoder's. */
  readonly encoder: boolean;
  readonly sites: readonly SiteSummary[];
}

/** Tokens by id, spelling and text. */
export interface TokenList {
  readonly ids: readonly number[];
  /** As the vocabulary spells them. */
  readonly tokens: readonly string[];
  /** As they read. */
  readonly texts: readonly string[];
}

/** Rows and columns of a picture's patches. */
export interface GridOfPatches {
  readonly rows: number;
  readonly columns: number;
}

/** Positions of a name or a picture in a prompt; see `ImageSpan` of the library. */
export interface SpanSummary {
  readonly start: number;
  readonly end: number;
  readonly grid?: GridOfPatches;
  readonly rowStride?: number;
  readonly parts?: { readonly whole: SpanSummary; readonly map?: SpanSummary };
  readonly tiles?: { readonly grid: GridOfPatches; readonly spans: readonly SpanSummary[] };
}

/** A picture of a prompt as the model sees it. */
export interface SeenPicture {
  /** The name of its span: `image`, `image2`, … */
  readonly span: string;
  /** In pixels, as given. */
  readonly width: number;
  readonly height: number;
  /** What the model sees, as a PNG: cropped, padded, resized; of a picture cut into tiles the whole. Patches lie over it. */
  readonly view?: { readonly width: number; readonly height: number; readonly png: Uint8Array };
  /**
   * Its patches as they lie over the view, and the position of each, row by row; absent where they are no one grid of places in the
   * prompt.
   */
  readonly patches?: GridOfPatches & { readonly positions: readonly number[] };
}

/** A prompt that the host keeps: its tokens, spans and pictures. */
export interface EncodedPrompt extends TokenList {
  readonly prompt: PromptHandle;
  readonly text: string;
  readonly bos: boolean;
  readonly spans: Readonly<Record<string, SpanSummary>>;
  readonly pictures: readonly SeenPicture[];
  /** What the decoder reads, where an encoder reads the prompt itself. */
  readonly sequence?: TokenList;
  /** Of the ids; equal prompts have the same. Blind to pixels. */
  readonly hash: string;
}

/** A token with its probability. */
export interface TokenAnswer {
  readonly id: number;
  readonly token: string;
  readonly text: string;
  /** Natural logarithm of its probability. */
  readonly logprob: number;
  readonly probability: number;
}

/** What a pass says comes next. */
export interface Answer {
  /** The most probable tokens, the most probable first. */
  readonly top: readonly TokenAnswer[];
  /** Those that were asked after, in that order. */
  readonly tracked: readonly TokenAnswer[];
}

/** What edits can change; see `reach` of the library. */
export interface Reached {
  /** First layer and first position that can change; the number of layers means the head alone. */
  readonly layer: number;
  readonly position: number;
  /** For each layer the positions whose `resid_post` can change, ascending. */
  readonly cells: readonly (readonly number[])[];
}

/** What a pass says comes next, and what its taps read. */
export interface RunAnswer extends Answer {
  readonly setting: Setting;
  /** Of a tap of several sites under `<name>/<site>`. */
  readonly taps: Readonly<Record<string, ArraySpec>>;
}

/** What a recorded pass says comes next, and its handle. */
export interface RecordAnswer extends Answer {
  readonly setting: Setting;
  readonly recording: RecordingHandle;
  /** Rows times layers that were computed. */
  readonly rowLayers: number;
}

/** Of each variant what comes next, before and after. */
export interface ResumeAnswer {
  readonly setting: Setting;
  readonly variants: readonly (Answer & {
    /** What the recorded pass says of each of the top tokens. */
    readonly before: readonly TokenAnswer[];
    readonly reach: Reached;
  })[];
  readonly rowLayers: number;
}

/** Of each edited layer what comes next. */
export interface LayersAnswer {
  readonly setting: Setting;
  readonly layers: readonly (Answer & { readonly layer: number })[];
  readonly rowLayers: number;
}

/** What was generated; see `Generated` of the library. */
export interface GeneratedAnswer {
  readonly setting: Setting;
  readonly ids: readonly number[];
  readonly text: string;
  readonly ended: boolean;
  readonly unfired: readonly {
    readonly edit: number;
    readonly label: string;
    readonly positions: readonly number[];
  }[];
}

/** Cells by layer, then position, then rank: `ids[(layer * positions.length + position) * k + rank]`. */
export interface LensAnswer {
  readonly setting: Setting;
  readonly layers: readonly number[];
  readonly positions: readonly number[];
  readonly k: number;
  readonly ids: Uint32Array;
  readonly probabilities: Float32Array;
  /** How each id among them reads. */
  readonly texts: Readonly<Record<number, string>>;
}

/** A vector that the host keeps: where it is of, and how long it is. */
export interface VectorSummary {
  readonly vector: VectorHandle;
  /** The site; of one with a vector a layer without the layer (`resid_post`), else with it (`resid_post.15`). */
  readonly site: string;
  /** Layers that there is a vector of; empty where it is of one place. */
  readonly layers: readonly number[];
  /** Of one place: the head, where it is of one alone. */
  readonly head?: number;
  /** Positions, where it holds a row for each of several; else absent. */
  readonly positions?: number;
  readonly features: number;
  /** Length of each row (Euclidean), by layer or position. */
  readonly norms: readonly number[];
  /** Where it comes from, in words. */
  readonly origin: string;
  readonly setting: Setting;
}

/** How a token's attention lies over a picture, in one layer. */
export interface AttentionMapAnswer {
  readonly layer: number;
  /** Absent for means and rollouts. */
  readonly head?: number;
  readonly grid: GridOfPatches;
  /** By patch, row by row; shares of the token's whole attention, which is 1. */
  readonly weights: Float32Array;
  readonly share: number;
}

/** Attention maps by layer, or by layer and head. */
export interface AttentionAnswer {
  readonly setting: Setting;
  readonly position: number;
  readonly maps: readonly AttentionMapAnswer[];
}

/** Points on a plane. */
export interface ProjectAnswer {
  /** x and y of each, one after the other. */
  readonly points: Float32Array;
  readonly method: "pca" | "tsne";
  /** Of PCA: the shares of the variance along x and y. */
  readonly explained?: readonly [number, number];
}

/** A task that comes with xpatch. */
export interface TaskSummary {
  readonly name: string;
  readonly instruction?: string;
  readonly source?: string;
  readonly license?: string;
  readonly items: readonly {
    readonly input: string;
    readonly outputs: readonly string[];
    readonly split: SplitName;
    /** Whether `task.picture` has one. */
    readonly picture: boolean;
    readonly emoji?: string;
  }[];
}

/** How many answers are right; see `Score` of the library. */
export interface ScoreSummary {
  readonly correct: number;
  readonly total: number;
  readonly accuracy: number;
  readonly majority: number;
  readonly distinct: number;
  /** By item. */
  readonly answers: readonly string[];
}

/** Accuracy by layer, patched and not. */
export interface SweepAnswer {
  readonly setting: Setting;
  /** Inputs of the items, in the order of the answers. */
  readonly inputs: readonly string[];
  readonly layers: readonly (ScoreSummary & { readonly layer: number })[];
  /** Of equals the first. */
  readonly best: number;
  readonly unpatched: ScoreSummary;
  readonly rowLayers: number;
  /** What full passes would have taken. */
  readonly plainRowLayers: number;
}
