import type { JSX } from "preact";
import { model } from "../model.ts";
import { addressOf } from "../navigation.ts";
import { session } from "../session.ts";
import { Notice } from "../ui/notice.tsx";
import { ProgressBar } from "../ui/progress.tsx";
import { bytesInWords } from "../ui/words.ts";

/** In place of a view that has nothing to show without a model. */
export function NeedsModel(): JSX.Element | null {
  const state = model.value;
  if (state.status === "fetching" || state.status === "loading") {
    const { choice, done, total } = state;
    const words = total === undefined ? "" : `${bytesInWords(done)} of ${bytesInWords(total)}`;
    return <ProgressBar label={`Loading ${choice.ref}`} done={done} total={total} words={words} />;
  }
  if (state.status === "failed") {
    return (
      <Notice kind="bad" title={`${state.choice.ref} cannot be loaded`}>
        <p>{state.error.message}</p>
        <a class="button" href={addressOf("model")}>
          Choose a model
        </a>
      </Notice>
    );
  }
  // What is wrong with it is said above.
  if (["lost", "failed"].includes(session.value.status)) return null;
  return (
    <Notice title="No model is loaded">
      <p>This view shows what a model computes.</p>
      <a class="button" href={addressOf("model")}>
        Choose a model
      </a>
    </Notice>
  );
}
