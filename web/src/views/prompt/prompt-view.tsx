import type { JSX } from "preact";
import "../../style/prompt.css";
import { useAsked } from "../../ask.ts";
import { AnswerTable } from "../../prompts/answer-table.tsx";
import { Generated } from "../../prompts/generated.tsx";
import { useGeneration } from "../../prompts/generation.ts";
import { PatchPicture } from "../../prompts/patch-picture.tsx";
import { isEmpty } from "../../prompts/prompt-doc.ts";
import { PromptEditor } from "../../prompts/prompt-editor.tsx";
import { TokenChips } from "../../prompts/token-chips.tsx";
import { tokensComputed } from "../../prompts/tokens-computed.ts";
import { useEncoded } from "../../prompts/use-prompt.ts";
import { store } from "../../state.ts";
import { isCommand } from "../../ui/keys.ts";
import { Notice } from "../../ui/notice.tsx";
import { Panel } from "../../ui/panel.tsx";
import { Provenance } from "../../ui/provenance.tsx";
import { Decoding } from "./decoding.tsx";
import { promptSlice } from "./prompt-slice.ts";

const TOP = 10;

/** A prompt, what the model reads of it, and what it answers. */
export function PromptView(): JSX.Element {
  const slice = store.slice(promptSlice).value;
  const { prompt, maxNewTokens, temperature, seed } = slice;
  const { value: encoded, key, current, error } = useEncoded(prompt);
  const first = useAsked(encoded && ["run", key], ({ client, model, signal }) =>
    client.run({ model, prompt: encoded!.prompt, top: TOP }, { signal }),
  );
  const options = { maxNewTokens, ...(temperature > 0 && { temperature, seed }) };
  const { generation, running, start, stop } = useGeneration(["generate", key, options]);
  const isReady = encoded !== undefined && current;
  const generate = () => {
    if (!isReady) return;
    start(({ client, model, signal, onToken }) =>
      client.generate(
        { model, prompt: encoded.prompt, ...options },
        { signal, onProgress: ({ token }) => token && onToken(token.text) },
      ),
    );
  };
  const failed = error ?? first.error;
  return (
    <div
      role="group"
      aria-label="A prompt and what becomes of it"
      class="panels prompt-view"
      onKeyDown={(event) => {
        if (event.key === "Enter" && isCommand(event)) {
          event.preventDefault();
          generate();
        } else if (event.key === "Escape" && running) stop();
      }}
    >
      <div class="panels">
        <Panel title="Prompt">
          <PromptEditor
            name="prompt"
            value={prompt}
            onChange={(label, next, same) =>
              store.set(promptSlice, label, (before) => ({ ...before, prompt: next }), same)
            }
          />
        </Panel>
        <Panel
          title="Answer"
          busy={running}
          actions={
            <>
              <button
                type="button"
                class="primary"
                disabled={!isReady || running}
                title="Ctrl+Enter"
                onClick={generate}
              >
                Generate
              </button>
              <button type="button" disabled={!running} title="Esc" onClick={stop}>
                Stop
              </button>
            </>
          }
          footer={generation?.answer && <Provenance setting={generation.answer.setting} />}
        >
          <Decoding value={slice} />
          <Generated generation={generation} />
          {!generation && <p class="soft">Nothing has been generated from this prompt yet.</p>}
        </Panel>
      </div>
      <div class="panels">
        {failed && (
          <Notice kind="bad" title="The model cannot read this prompt">
            <p>{failed.message}</p>
          </Notice>
        )}
        <Panel
          title={encoded ? `Tokens (${tokensComputed(encoded).ids.length})` : "Tokens"}
          busy={!current && !isEmpty(prompt)}
        >
          {encoded ? (
            <>
              <TokenChips encoded={encoded} />
              <div class="seen">
                {encoded.pictures.map((seen) => (
                  <PatchPicture
                    key={seen.span}
                    seen={seen}
                    label={seen.span === "image" ? "picture" : `picture ${seen.span.slice(5)}`}
                    cell={(position) => ({ title: `patch at position ${position}` })}
                  />
                ))}
              </div>
            </>
          ) : (
            !failed && (
              <p class="soft">
                {isEmpty(prompt)
                  ? prompt.kind === "task"
                    ? "Choose what is asked about."
                    : "Write something."
                  : "Reading…"}
              </p>
            )
          )}
        </Panel>
        <Panel
          title="What comes next"
          busy={encoded !== undefined && !first.current}
          footer={first.value && <Provenance setting={first.value.setting} />}
        >
          {encoded && first.current && first.value ? (
            <AnswerTable label="The most probable next tokens" top={first.value.top} />
          ) : (
            <p class="soft">
              {encoded && !first.error ? "Computing…" : "The probabilities of the first token."}
            </p>
          )}
        </Panel>
      </div>
    </div>
  );
}
