import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { ModelChoice } from "../../document/document.ts";
import { loadModel } from "../../model.ts";
import { pickedFolder } from "../../models/dropped.ts";
import { isHubId } from "../../models/hub.ts";
import { isOpenOrOpening, session } from "../../session.ts";
import { Panel } from "../../ui/panel.tsx";
import { toastError } from "../../ui/toasts.tsx";

const FORMATS = ["int8", "int4", "nf4"] as const;

/** Any model that xpatch reads: a folder, a URL, a name of the hub. */
export function OtherModels(): JSX.Element {
  const [ref, setRef] = useState("");
  const [quantise, setQuantise] = useState("");
  const state = session.value;
  const canLoad = isOpenOrOpening(state);
  const how = quantise === "" ? {} : { quantise };
  if (state.status === "open" && !state.models.anyRef) {
    return (
      <Panel title="Any other model">
        <p class="soft">
          This server lends only what it offers. Started with <code>--any-model</code> it loads any folder,
          URL or hub name.
        </p>
      </Panel>
    );
  }
  return (
    <Panel title="Any other model">
      <div class="stack">
        <form
          class="stack"
          onSubmit={(event) => {
            event.preventDefault();
            void loadModel({ ...choiceOf(ref.trim()), ...how });
          }}
        >
          <label for="model-ref">
            A name of the Hugging Face hub (<code>org/name</code>), or the URL of a folder with a model in it
          </label>
          <div class="row">
            <input
              id="model-ref"
              type="text"
              required
              placeholder="HuggingFaceTB/SmolLM2-135M-Instruct"
              spellcheck={false}
              autocomplete="off"
              value={ref}
              onInput={(event) => setRef(event.currentTarget.value)}
            />
            <button type="submit" disabled={!canLoad}>
              Load
            </button>
          </div>
        </form>
        <div class="row">
          <label class="button" data-off={!canLoad || undefined}>
            Choose a folder…
            <input
              type="file"
              class="visually-hidden"
              disabled={!canLoad}
              // @ts-expect-error: every browser has it, no specification does
              webkitdirectory
              onChange={(event) => {
                const { files } = event.currentTarget;
                if (files && files.length > 0) pick(files, how);
                event.currentTarget.value = "";
              }}
            />
          </label>
          <span class="soft">or drop one on this page. It stays on this machine.</span>
        </div>
        <div class="row">
          <label for="model-quantise">Weights</label>
          <select
            id="model-quantise"
            value={quantise}
            onChange={(event) => setQuantise(event.currentTarget.value)}
          >
            <option value="">as stored</option>
            {FORMATS.map((format) => (
              <option key={format} value={format}>
                {format}, quantised while loading
              </option>
            ))}
          </select>
        </div>
      </div>
    </Panel>
  );
}

function choiceOf(ref: string): ModelChoice {
  return isHubId(ref) ? { kind: "hub", ref } : { kind: "url", ref };
}

function pick(list: FileList, how: { quantise?: string }): void {
  try {
    const { name, files } = pickedFolder(list);
    void loadModel({ kind: "files", ref: name, ...how }, files);
  } catch (error) {
    toastError(error);
  }
}
