import type { AbortSignal } from "../../platform/global-types.ts";
import type { ParamsOf, Progress, RequestName, ResultOf } from "../messages/requests.ts";
import type { Bounds, ModelsResult } from "../messages/results.ts";
import type { Chores } from "../state/chores.ts";
import type { Engine } from "../state/engine.ts";
import type { Kept } from "../state/kept.ts";
import type { TaskShelf } from "./task-shelf.ts";

/** What carrying a request out takes. */
export interface Work {
  readonly engine: Engine;
  /** What the client has handles of. */
  readonly kept: Kept;
  readonly tasks: TaskShelf;
  readonly bounds: Bounds;
  readonly offer: Offer;
  readonly chores: Chores;
  /** Aborted when the client gives the request up, or goes away. */
  readonly signal: AbortSignal;
  /** Tells how far it is. Throws where the request has been given up, as every long request then does at its next step. */
  readonly progress: (progress: Progress) => void;
}

/** Which models a host lends. */
export interface Offer extends Pick<ModelsResult, "anyRef" | "files"> {
  readonly models: readonly { readonly ref: string; readonly label: string }[];
}

export type Handler<Name extends RequestName> = (
  work: Work,
  params: ParamsOf<Name>,
) => ResultOf<Name> | Promise<ResultOf<Name>>;
