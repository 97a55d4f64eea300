import type { Quantise } from "../../model/checkpoint/weights/quantise.ts";
import type {
  AdapterSummary,
  AttentionAnswer,
  EncodedPrompt,
  GeneratedAnswer,
  HelloResult,
  LayersAnswer,
  LensAnswer,
  ModelSummary,
  ModelsResult,
  ProjectAnswer,
  Reached,
  RecordAnswer,
  ResumeAnswer,
  RunAnswer,
  SweepAnswer,
  TaskSummary,
  VectorSummary,
} from "./results.ts";
import type {
  EditSpec,
  FileMap,
  Handle,
  LayerEditSpec,
  ModelHandle,
  PictureHandle,
  PictureSpec,
  PositionsSpec,
  PromptRef,
  RecordingHandle,
  SpecifySpec,
  SplitName,
  TapSpec,
  TaskPicture,
  TaskRef,
  VectorHandle,
} from "./values.ts";

/* Every request of the protocol: what it takes, what it is answered with, what it tells on the way. */

/** How a request tells that it goes on. */
export interface Progress {
  /** `queue`: `done` others are before it. `download`, `load`: bytes. `layers`, `items`, `prompts`, `steps`: of its work. `token`: new tokens. */
  readonly phase: "queue" | "download" | "load" | "layers" | "items" | "prompts" | "steps" | "token";
  readonly done: number;
  /** Absent where nobody knows. */
  readonly total?: number;
  /** Of a download: which file. */
  readonly file?: string;
  /** Of a new token. */
  readonly token?: { readonly id: number; readonly text: string };
}

/** How many tokens an answer names. */
export interface AnswerOptions {
  /** Most probable tokens. Default 10. */
  readonly top?: number;
  /** Ids to tell the probability of besides. */
  readonly track?: readonly number[];
}

/** Where a model comes from. */
export type ModelSource =
  /** One of those offered; where the host allows it also a folder, a URL or a hub id. */
  | { readonly ref: string; readonly base?: string; readonly adapters?: readonly string[] }
  /** A folder that the user has dropped. Its base, if it needs one, by a reference. */
  | { readonly files: FileMap; readonly name: string; readonly base?: string };

/** How a vector is made. */
export type VectorRecipe =
  /** What says the task in words or examples: a vector a layer (the mean over the prompts of a split's items). */
  | {
      readonly task: TaskRef;
      readonly specify: SpecifySpec & { readonly kind: "text" | "image" | "instruction" };
      /** Default train. */
      readonly split?: SplitName;
      /** Most items to make prompts for. Default 20. */
      readonly items?: number;
      /** Default resid_post. */
      readonly site?: string;
    }
  /** A vector a layer: the mean over prompts, at one position of each. */
  | {
      readonly prompts: readonly PromptRef[];
      /** Default -1. */
      readonly at?: number;
      /** Default resid_post. */
      readonly site?: string;
    }
  /** What one prompt has at one site, which names its layer: at one position, or a row for each of several. */
  | {
      readonly prompt: PromptRef;
      readonly site: string;
      readonly at: PositionsSpec;
      readonly head?: number;
      readonly image?: number;
      /** Edits that are in force as it is read. */
      readonly edits?: readonly EditSpec[];
    };

/** All requests by name: what each takes (`params`), and what it is answered with (`result`). */
export interface Requests {
  /** The first request of every client. A client of another version is refused. */
  readonly hello: {
    readonly params: { readonly version: number; readonly client?: string };
    readonly result: HelloResult;
  };
  /** What it computes on; opens the device. DeviceError, saying what is missing, where there is none. */
  readonly adapters: { readonly params: Record<never, never>; readonly result: AdapterSummary };
  readonly models: { readonly params: Record<never, never>; readonly result: ModelsResult };
  /** A model that is loaded already, the same way, is shared. Progress: `download`, `load`. */
  readonly load: {
    readonly params: ModelSource & { readonly quantise?: Quantise };
    readonly result: ModelSummary;
  };
  /** Gives a model back, with its recordings. The weights leave the device with the last client that has it. */
  readonly unload: { readonly params: { readonly model: ModelHandle }; readonly result: null };
  readonly free: { readonly params: { readonly handles: readonly Handle[] }; readonly result: null };

  /** Keeps a picture with the host, decoded, so that it need not be sent again. */
  readonly picture: {
    readonly params: { readonly image: PictureSpec };
    readonly result: { readonly picture: PictureHandle; readonly width: number; readonly height: number };
  };
  readonly encode: {
    readonly params: {
      readonly model: ModelHandle;
      readonly prompt: PromptRef;
      /** With what the model sees of each picture. Default false. */
      readonly views?: boolean;
    };
    readonly result: EncodedPrompt;
  };
  /** One pass. */
  readonly run: {
    readonly params: {
      readonly model: ModelHandle;
      readonly prompt: PromptRef;
      readonly edits?: readonly EditSpec[];
      readonly taps?: Readonly<Record<string, TapSpec>>;
    } & AnswerOptions;
    readonly result: RunAnswer;
  };
  /** A pass of which everything is kept that patched ones can start from. */
  readonly record: {
    readonly params: {
      readonly model: ModelHandle;
      readonly prompt: PromptRef;
      readonly edits?: readonly EditSpec[];
    } & AnswerOptions;
    readonly result: RecordAnswer;
  };
  /** Patched copies of a recorded pass, each a list of edits; computes only what they can change. */
  readonly resume: {
    readonly params: {
      readonly recording: RecordingHandle;
      readonly variants: readonly (readonly EditSpec[])[];
    } & AnswerOptions;
    readonly result: ResumeAnswer;
  };
  /** One edit of each layer in turn, all in one batch, from a recorded pass. */
  readonly layers: {
    readonly params: {
      readonly recording: RecordingHandle;
      readonly edit: LayerEditSpec;
      /** In force besides, in each. */
      readonly edits?: readonly EditSpec[];
      /** Default: all, or those that the edit's vector has. */
      readonly layers?: readonly number[];
    } & AnswerOptions;
    readonly result: LayersAnswer;
  };
  /** Greedy unless a temperature is given. Progress: `token`. */
  readonly generate: {
    readonly params: {
      readonly model: ModelHandle;
      readonly prompt: PromptRef;
      readonly edits?: readonly EditSpec[];
      readonly maxNewTokens: number;
      readonly temperature?: number;
      readonly topK?: number;
      readonly topP?: number;
      readonly seed?: number;
      readonly stopIds?: readonly number[];
    };
    readonly result: GeneratedAnswer;
  };
  /** What each layer reads as at each position. Progress: `layers`. */
  readonly lens: {
    readonly params: {
      readonly model: ModelHandle;
      readonly prompt: PromptRef;
      readonly edits?: readonly EditSpec[];
      /** Default resid_post. */
      readonly site?: string;
      /** Default all. */
      readonly at?: PositionsSpec;
      /** Default all. */
      readonly layers?: readonly number[];
      /** Tokens of each cell. Default 1. */
      readonly k?: number;
    };
    readonly result: LensAnswer;
  };
  /** What edits could change. Computes no pass. */
  readonly reach: {
    readonly params: {
      readonly model: ModelHandle;
      readonly prompt: PromptRef;
      readonly edits: readonly EditSpec[];
    };
    readonly result: Reached;
  };
  /** Attention from a token over a picture. Progress: `layers`. */
  readonly attention: {
    readonly params: {
      readonly model: ModelHandle;
      readonly prompt: PromptRef;
      /** Default the last. */
      readonly at?: number;
      /** The picture's span. Default image. */
      readonly span?: string;
      readonly layers?: readonly number[];
      /** `mean` of the heads (default), `each` head, one head, or `rollout` over the layers up to each. */
      readonly heads?: "mean" | "each" | "rollout" | number;
    };
    readonly result: AttentionAnswer;
  };

  /** Progress: `prompts`. */
  readonly "vector.make": {
    readonly params: { readonly model: ModelHandle; readonly recipe: VectorRecipe };
    readonly result: VectorSummary;
  };
  /** The sum of vectors of one shape, each by its weight. */
  readonly "vector.mix": {
    readonly params: {
      readonly vectors: readonly { readonly vector: VectorHandle; readonly weight: number }[];
    };
    readonly result: VectorSummary;
  };
  /** The numbers: [layers or positions, features]. */
  readonly "vector.read": {
    readonly params: { readonly vector: VectorHandle };
    readonly result: { readonly shape: readonly number[]; readonly data: Float32Array };
  };
  /** As the bytes of a safetensors file. */
  readonly "vector.save": {
    readonly params: { readonly vector: VectorHandle };
    readonly result: { readonly bytes: Uint8Array };
  };
  /** The inverse. CheckpointError for other files, SiteError for vectors that do not fit the model. */
  readonly "vector.load": {
    readonly params: { readonly model: ModelHandle; readonly bytes: Uint8Array; readonly name?: string };
    readonly result: VectorSummary;
  };
  readonly "vector.free": { readonly params: { readonly vector: VectorHandle }; readonly result: null };

  /** A plane to draw vectors on: of kept vectors (each by a layer), or of numbers [points, features]. */
  readonly project: {
    readonly params: {
      readonly points:
        | readonly { readonly vector: VectorHandle; readonly layer?: number }[]
        | { readonly shape: readonly number[]; readonly data: Float32Array };
      readonly method: "pca" | "tsne";
      readonly seed?: number;
    };
    readonly result: ProjectAnswer;
  };
  /** One activation of each prompt, as numbers [prompts, features] to draw. Progress: `prompts`. */
  readonly activations: {
    readonly params: {
      readonly model: ModelHandle;
      readonly prompts: readonly PromptRef[];
      /** With its layer: resid_post.15. */
      readonly site: string;
      /** Default -1. */
      readonly at?: number;
    };
    readonly result: {
      readonly shape: readonly number[];
      readonly data: Float32Array;
    };
  };

  /** The tasks that come with xpatch. */
  readonly tasks: {
    readonly params: Record<never, never>;
    readonly result: { readonly tasks: readonly TaskSummary[] };
  };
  /** The file of an item's picture. */
  readonly "task.picture": {
    readonly params: TaskPicture;
    readonly result: { readonly bytes: Uint8Array; readonly type: string };
  };
  /** How often a task's vector answers right, layer by layer. Progress: `items`. */
  readonly sweep: {
    readonly params: {
      readonly model: ModelHandle;
      /** With a vector a layer. */
      readonly vector: VectorHandle;
      readonly task: TaskRef;
      /** Default validation. */
      readonly split?: SplitName;
      /** Whether items are asked about by name or by picture. Default text. */
      readonly asked?: "text" | "image";
      /** Most items. Default: all of the split. */
      readonly items?: number;
      readonly layers?: readonly number[];
      /** What the queries have in them beside the question. Default none. */
      readonly specify?: SpecifySpec;
      readonly template?: string;
    };
    readonly result: SweepAnswer;
  };
}

/** Name of a request. */
export type RequestName = keyof Requests;
/** What a request takes. */
export type ParamsOf<Name extends RequestName> = Requests[Name]["params"];
/** What a request is answered with. */
export type ResultOf<Name extends RequestName> = Requests[Name]["result"];
