import type { JSX } from "preact";
import "../../style/prompt.css";
import "../../style/lens.css";
import "../../style/vectors.css";
import "../../style/see.css";
import { PromptEditor } from "../../prompts/prompt-editor.tsx";
import { useEncoded } from "../../prompts/use-prompt.ts";
import { store } from "../../state.ts";
import { Panel } from "../../ui/panel.tsx";
import { AttentionPanel } from "./attention-panel.tsx";
import { PatchLensPanel } from "./patch-lens-panel.tsx";
import { PlanePanel } from "./plane-panel.tsx";
import { SEE, type SeeSlice, type Tab } from "./see-slice.ts";
import { TokenPicker } from "./token-picker.tsx";

const WORDS: Record<Tab, string> = {
  attention: "Attention",
  lens: "Words of patches",
  plane: "Vectors on a plane",
};

/** Where a token looks in a picture, what its patches read as, how vectors lie to each other. */
export function SeeView(): JSX.Element {
  const { prompt, tab } = store.slice(SEE).value;
  return (
    <div class="see-view">
      <div class="segments" role="radiogroup" aria-label="What to see">
        {(Object.keys(WORDS) as Tab[]).map((each) => (
          <label key={each}>
            <input
              type="radio"
              name="see-tab"
              checked={tab === each}
              onChange={() =>
                store.set(SEE, `see ${WORDS[each].toLowerCase()}`, (slice) => ({ ...slice, tab: each }))
              }
            />
            <span>{WORDS[each]}</span>
          </label>
        ))}
      </div>
      {tab === "plane" ? <PlanePanel /> : <OfPrompt prompt={prompt} tab={tab} />}
    </div>
  );
}

function OfPrompt({ prompt, tab }: { prompt: SeeSlice["prompt"]; tab: Tab }): JSX.Element {
  const encoded = useEncoded(prompt);
  return (
    <div class="see-columns">
      <Panel title="Prompt">
        <div class="stack wide">
          <PromptEditor
            name="prompt"
            value={prompt}
            onChange={(label, value, same) =>
              store.set(SEE, label, (slice) => ({ ...slice, prompt: value, at: -1 }), same)
            }
          />
          {encoded.error && (
            <p class="bad-words" role="alert">
              {encoded.error.message}
            </p>
          )}
          {encoded.value && tab === "attention" && <TokenPicker encoded={encoded.value} />}
        </div>
      </Panel>
      {encoded.value &&
        encoded.key &&
        (tab === "attention" ? (
          <AttentionPanel encoded={encoded.value} encodedKey={encoded.key} />
        ) : (
          <PatchLensPanel encoded={encoded.value} encodedKey={encoded.key} />
        ))}
    </div>
  );
}
