import type { FetchProgress, KeptBytes } from "./fetch-model.ts";
import type { Manifest } from "./manifest.ts";

/** What the page asks of the worker that keeps models. */
export type StoreRequest =
  | { readonly id: number; readonly type: "fetch"; readonly model: string; readonly manifest: Manifest }
  | { readonly id: number; readonly type: "cancel"; readonly request: number }
  | { readonly id: number; readonly type: "list" }
  | { readonly id: number; readonly type: "remove"; readonly model: string };

export type StoreAnswer =
  | { readonly id: number; readonly type: "progress"; readonly progress: FetchProgress }
  /** The files, by their paths. */
  | { readonly id: number; readonly type: "fetched"; readonly files: ReadonlyMap<string, Blob> }
  /** They cannot be kept here, and why. */
  | { readonly id: number; readonly type: "fetched"; readonly why: string }
  | {
      readonly id: number;
      readonly type: "listed";
      readonly kept: readonly KeptBytes[];
      readonly vault?: string;
    }
  | { readonly id: number; readonly type: "removed" }
  | { readonly id: number; readonly type: "failed"; readonly message: string };
