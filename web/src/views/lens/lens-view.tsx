import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import "../../style/prompt.css";
import "../../style/lens.css";
import { model } from "../../model.ts";
import { isEmpty } from "../../prompts/prompt-doc.ts";
import { tokensComputed } from "../../prompts/tokens-computed.ts";
import { useEncoded } from "../../prompts/use-prompt.ts";
import { store } from "../../state.ts";
import { EditList } from "./edit-list.tsx";
import { How } from "./how.tsx";
import { LayerStrip } from "./layer-strip.tsx";
import { lensSlice, withExample } from "./lens-slice.ts";
import { aimed, carried } from "./lens-state.ts";
import { PatchedAnswer } from "./patched-answer.tsx";
import { Side } from "./side.tsx";
import { boundsOf, editsOf } from "./site-facts.ts";
import { useLens, usePatched, useRecorded, useRunOf } from "./use-lens.ts";

/** Two prompts as grids of tokens and layers; what is put from one onto the other changes the answer. */
export function LensView(): JSX.Element | null {
  const slice = store.slice(lensSlice).value;
  const source = useEncoded(slice.source);
  const target = useEncoded(slice.target);
  const state = model.value;
  const summary = state.status === "ready" ? state.summary : undefined;
  const bounds = {
    source: source.value && tokensComputed(source.value).ids.length,
    target: target.value && tokensComputed(target.value).ids.length,
  };
  const edits = editsOf(slice, summary, bounds);
  const recorded = useRecorded(target);
  const patched = usePatched(edits.inForce, source, recorded);
  const sourceAnswer = useRunOf(source);
  const sourceLens = useLens(source, slice.how.site);
  const targetLens = useLens(target, slice.how.site, edits.inForce, source);
  // Nothing is carried into another view, or when the prompts change.
  useEffect(
    () => () => {
      carried.value = undefined;
      aimed.value = undefined;
    },
    [source.key, target.key],
  );
  if (!summary) return null;
  const extent = { ...boundsOf(summary, slice.how, bounds) };
  return (
    <div class="panels lens-view">
      <How slice={slice} summary={summary} />
      {isEmpty(slice.source) && isEmpty(slice.target) && (
        <p class="row lens-begin">
          <span class="soft">
            Write two prompts, or see what becomes of a task that is put from examples in words onto a bare
            question.
          </span>
          <button
            type="button"
            class="primary"
            onClick={() =>
              store.set(lensSlice, "begin with an example", (before) =>
                withExample(before, summary.takesPictures),
              )
            }
          >
            Begin with an example
          </button>
        </p>
      )}
      <div class="panels sides">
        <Side
          name="source"
          slice={slice}
          held={source}
          lens={sourceLens}
          summary={summary}
          answer={sourceAnswer.current ? sourceAnswer.value?.top[0] : undefined}
          bounds={extent}
        />
        <Side
          name="target"
          slice={slice}
          held={target}
          lens={targetLens}
          summary={summary}
          answer={
            edits.inForce.length > 0
              ? patched.current
                ? patched.value?.variant.top[0]
                : undefined
              : recorded.current
                ? recorded.value?.answer.top[0]
                : undefined
          }
          bounds={extent}
          reach={edits.inForce.length > 0 && patched.current ? patched.value?.variant.reach : undefined}
          edits={edits.inForce}
        />
      </div>
      <div class="panels below">
        <EditList slice={slice} summary={summary} problems={edits.problems} />
        <PatchedAnswer
          slice={slice}
          edits={edits.inForce}
          source={source}
          target={target}
          recorded={recorded}
          patched={patched}
        />
      </div>
      <LayerStrip
        slice={slice}
        summary={summary}
        source={source}
        recorded={recorded}
        sourceTop={sourceAnswer.current ? sourceAnswer.value?.top[0] : undefined}
        bounds={bounds}
      />
    </div>
  );
}
