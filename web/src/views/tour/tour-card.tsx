import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import "../../style/tour.css";
import { model } from "../../model.ts";
import { rests } from "../../rest.ts";
import { store } from "../../state.ts";
import { CHAPTERS, isDone } from "./chapters.ts";
import { TOUR, type TourSlice } from "./tour-slice.ts";

/** The tour's words, below the view that they are about. */
export function TourCard(): JSX.Element | null {
  const { on, chapter: c, step: s } = store.slice(TOUR).value;
  const title = useRef<HTMLHeadingElement>(null);
  const chapter = CHAPTERS[c];
  const step = chapter?.steps[s];
  const state = model.value;
  useEffect(() => {
    if (!on || !step) return;
    store.visit(step.view);
    title.current?.focus();
  }, [on, c, s]);
  usePointer(on ? step?.panel : undefined);
  if (!on || !chapter || !step) return null;
  const layers = state.status === "ready" ? state.summary.layers : 1;
  const { change } = step;
  const done = isDone(step, store.document.value, layers);
  const isLast = s === chapter.steps.length - 1;
  const next = isLast ? CHAPTERS[c + 1] : undefined;
  const isThere = store.view.value === step.view;
  return (
    <aside class="tour" aria-labelledby="tour-title">
      <div class="words">
        <p class="soft number">
          {chapter.title} · {s + 1} of {chapter.steps.length}
        </p>
        <h2 id="tour-title" ref={title} tabIndex={-1}>
          {step.title}
        </h2>
        <p>{step.words}</p>
      </div>
      <div class="does">
        {change && (
          <button
            type="button"
            class={done ? "" : "primary"}
            disabled={state.status !== "ready" || done}
            onClick={() => store.change(`tour: ${step.title}`, (document) => change(document, layers))}
          >
            {done ? "Done" : step.doing}
          </button>
        )}
        <p class="soft" role="status">
          {!done ? "" : rests.value ? "Computed just now: see above." : "The model computes…"}
        </p>
        {!isThere && (
          <button type="button" class="quiet" onClick={() => store.visit(step.view)}>
            Back to what this is about
          </button>
        )}
        <div class="row">
          <button type="button" disabled={s === 0} onClick={() => goTo({ on, chapter: c, step: s - 1 })}>
            Back
          </button>
          {!isLast || next ? (
            <button
              type="button"
              class={!change || done ? "primary" : ""}
              onClick={() => goTo(isLast ? { on, chapter: c + 1, step: 0 } : { on, chapter: c, step: s + 1 })}
            >
              {isLast ? "Next chapter" : "Next"}
            </button>
          ) : (
            <button type="button" class="primary" onClick={() => goTo({ on: false, chapter: 0, step: 0 })}>
              Finish
            </button>
          )}
          <button type="button" class="quiet" onClick={() => goTo({ on: false, chapter: c, step: s })}>
            Leave
          </button>
        </div>
      </div>
    </aside>
  );
}

export function goTo(place: TourSlice): void {
  store.place(TOUR, place);
}

/** Pixels above the panel that a step is about. */
const ROOM = 12;

/** Rings the panel that a step is about, and brings it into view, also where it appears later. */
function usePointer(panel: string | undefined): void {
  useEffect(() => {
    if (panel === undefined) return;
    const main = document.querySelector("#main");
    let ringed: HTMLElement | undefined;
    const look = () => {
      const heads = [...document.querySelectorAll<HTMLElement>("#main .panel > header > h2")];
      const found =
        heads.find((head) => head.textContent === panel)?.closest<HTMLElement>(".panel") ?? undefined;
      if (found === ringed) return;
      delete ringed?.dataset["pointed"];
      ringed = found;
      if (!found) return;
      found.dataset["pointed"] = "";
      // Within the view alone: `scrollIntoView` would move the page as well.
      const above = found.getBoundingClientRect().top - (main?.getBoundingClientRect().top ?? 0);
      main?.scrollBy({ top: above - ROOM });
    };
    look();
    const watcher = new MutationObserver(look);
    if (main) watcher.observe(main, { childList: true, subtree: true });
    return () => {
      watcher.disconnect();
      delete ringed?.dataset["pointed"];
    };
  }, [panel]);
}
