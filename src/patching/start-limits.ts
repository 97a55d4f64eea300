import type { Prompt } from "../model/prompt/prompt.ts";
import type { LogitPositions } from "../model/walk/forward.ts";
import type { StartLimits } from "../model/walk/shared-starts.ts";
import type { ResolvedEdit } from "./edit-value.ts";
import { eachResult, type TapResults } from "./resolve-taps.ts";
import type { Target } from "./site-targets.ts";

/**
 * What the edits, taps and logits of a run leave of its prompts' starts to be shared; undefined where nothing may be, since the
 * logits of every position are wanted or what the prompts' pictures are seen as is changed.
 */
export function startLimits(
  prompts: readonly Prompt[],
  edits: readonly ResolvedEdit[],
  taps: TapResults,
  logits: LogitPositions,
): StartLimits | undefined {
  const edited = edits.map(({ target }) => target);
  if (logits === "all" || edited.some(({ info }) => info.sequences !== "prompts")) return undefined;
  const tapped = eachResult(taps).map(({ target }) => target);
  return {
    wanted: prompts.map((prompt, s) =>
      Math.min(firstPosition(tapped, s), ...(logits === "last" ? [prompt.last] : (logits[s] ?? []))),
    ),
    changed: prompts.map((_, s) => firstPosition(edited, s)),
  };
}

/** The first position of a prompt that any of them names in the layers. */
function firstPosition(targets: readonly Target[], sequence: number): number {
  const positions = targets
    .filter(({ info }) => info.sequences === "prompts")
    .flatMap(({ positions }) => positions.get(sequence) ?? []);
  return positions.reduce((first, position) => Math.min(first, position), Number.POSITIVE_INFINITY);
}
