import type { JSX } from "preact";
import { loadModel, model } from "../../model.ts";
import { offered } from "../../offered.ts";
import { isOpenOrOpening, session } from "../../session.ts";
import { store } from "../../state.ts";
import { Panel } from "../../ui/panel.tsx";
import "../../style/vectors.css";
import "../../style/tour.css";
import { CHAPTERS } from "./chapters.ts";
import { goTo } from "./tour-card.tsx";
import { TOUR } from "./tour-slice.ts";

/** The model that the tour is made for. */
const SHIPPED = "xpatch:vlm";

/** The chapters, to begin, to go on with, to begin anew. */
export function TourView(): JSX.Element {
  const { on, chapter, step } = store.slice(TOUR).value;
  const state = model.value;
  const ready = state.status === "ready";
  const isShipped = ready && state.choice.ref === SHIPPED;
  const canLoad = isOpenOrOpening(session.value) && offered.models.some(({ id }) => id === SHIPPED);
  const begun = !on && (chapter > 0 || step > 0);
  const start = (c: number, s: number) => goTo({ on: true, chapter: c, step: s });
  return (
    <div class="tour-view">
      <Panel title="Tour">
        <div class="stack">
          <p class="lead">
            Two chapters, some minutes each. Every step does the thing itself, on this page, with the model
            that is loaded: what you see is computed as you look. You can leave at any step and go on later,
            and try your own things in between.
          </p>
          {!ready && (
            <div class="notice">
              <p>The tour needs a model.{canLoad && " It is made for the one that ships with xpatch."}</p>
              {canLoad && (
                <button
                  type="button"
                  class="primary"
                  disabled={state.status === "loading" || state.status === "fetching"}
                  onClick={() => void loadModel({ kind: "offered", ref: SHIPPED })}
                >
                  Load {SHIPPED}
                </button>
              )}
            </div>
          )}
          {ready && !isShipped && (
            <p class="soft">
              The tour is made for {SHIPPED}; {state.summary.setting.model} may answer otherwise, or not have
              learnt the tasks.
            </p>
          )}
          {begun && (
            <button type="button" class="primary" disabled={!ready} onClick={() => start(chapter, step)}>
              Go on: {CHAPTERS[chapter]?.steps[step]?.title}
            </button>
          )}
        </div>
      </Panel>
      {CHAPTERS.map(({ title, words, steps }, c) => (
        <Panel
          key={title}
          title={`${c + 1}. ${title}`}
          actions={
            <button
              type="button"
              class={begun ? "" : "primary"}
              disabled={!ready}
              aria-label={`Begin: ${title}`}
              onClick={() => start(c, 0)}
            >
              Begin
            </button>
          }
        >
          <p>{words}</p>
          <ol class="steps">
            {steps.map((each, s) => (
              <li key={each.title}>
                <button type="button" class="link" disabled={!ready} onClick={() => start(c, s)}>
                  {each.title}
                </button>
              </li>
            ))}
          </ol>
        </Panel>
      ))}
    </div>
  );
}
