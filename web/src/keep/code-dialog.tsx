import type { JSX } from "preact";
import type { TaskSummary } from "../../../src/session/messages/results.ts";
import type { ModelChoice } from "../document/document.ts";
import { model } from "../model.ts";
import { offered } from "../offered.ts";
import { session } from "../session.ts";
import { store } from "../state.ts";
import { Icon } from "../ui/icons.tsx";
import { saveAs } from "../ui/save.ts";
import { toast, toastError } from "../ui/toasts.tsx";
import { useTasks } from "../vectors/use-tasks.ts";
import { type ModelCode, writeProgram } from "./code/write-program.ts";
import { closeKeep } from "./keep-open.ts";

/** The program that does what the view shows. */
export function CodeDialog(): JSX.Element {
  const { value: tasks, error } = useTasks();
  const state = model.value;
  const ready = state.status === "ready" && tasks;
  const { code, problem } = ready ? programOf(tasks, state.choice) : {};
  const why = error ?? problem;
  const copy = async (what: string) => {
    try {
      await navigator.clipboard.writeText(what);
      toast("The program is copied.");
      closeKeep();
    } catch (refused) {
      toastError(refused);
    }
  };
  return (
    <div class="stack wide code">
      <header class="row">
        <h2 id="keep-title">As code</h2>
        <button type="button" class="quiet icon close" aria-label="Close" onClick={closeKeep}>
          <Icon name="close" />
        </button>
      </header>
      {why ? (
        <p class="bad-words">{why.message}</p>
      ) : !ready ? (
        <p class="soft">Load a model first: the program names it.</p>
      ) : code === undefined ? (
        <p class="soft">
          This view asks the model nothing yet. Prompt, Patch lens, Task vectors and See have a program.
        </p>
      ) : (
        <>
          <p class="soft">
            Prints what this view shows, a line for each answer. In a project with xpatch: save it as{" "}
            <code>explore.ts</code> and run it; another model is its first argument.
          </p>
          <textarea readOnly spellcheck={false} aria-label="Program" value={code} />
          <div class="row">
            <button type="button" class="primary" onClick={() => copy(code)}>
              Copy
            </button>
            <button type="button" onClick={() => saveAs("explore.ts", code, "text/plain")}>
              Save
            </button>
          </div>
        </>
      )}
    </div>
  );
}

/** The program of the view; why there is none, where vectors do not go together. */
function programOf(
  tasks: readonly TaskSummary[],
  choice: ModelChoice,
): { readonly code?: string | undefined; readonly problem?: Error } {
  try {
    return { code: writeProgram(store.document.value, tasks, modelCode(choice)) };
  } catch (problem) {
    return { problem: problem as Error };
  }
}

/** Where a program finds what this page has loaded: the very files, where they lie beside the page. */
function modelCode({ kind, ref, quantise }: ModelChoice): ModelCode {
  const open = session.peek();
  const isTab = open.status === "open" && open.target.kind === "tab";
  const files = kind === "offered" && isTab ? offered.models.find(({ id }) => id === ref)?.files : undefined;
  const url = files?.[0]?.url;
  if (url === undefined) return { ref, quantise };
  return { ref: new URL(url, document.baseURI).href.replace(/\/[^/]*$/, ""), quantise };
}
