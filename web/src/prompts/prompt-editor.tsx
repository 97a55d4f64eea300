import type { JSX } from "preact";
import { model } from "../model.ts";
import { type PromptDoc, written } from "./prompt-doc.ts";
import { TaskPicker } from "./task-picker.tsx";
import { WrittenEditor } from "./written-editor.tsx";

export interface PromptEditorProps {
  /** What it is a prompt for: "source". */
  readonly name: string;
  readonly value: PromptDoc;
  /** `label` says what was done; changes with the same `same` in a row are one step. */
  readonly onChange: (label: string, value: PromptDoc, same?: string) => void;
}

const KINDS = [
  ["written", "Write"],
  ["task", "From a task"],
] as const;

/** A prompt is written, with pictures in it, or put together from a task. */
export function PromptEditor(props: PromptEditorProps): JSX.Element {
  const { name, value, onChange } = props;
  const state = model.value;
  const hasChat = state.status === "ready" && state.summary.hasChat;
  const choose = (kind: PromptDoc["kind"]) => {
    if (kind === value.kind) return;
    if (kind === "written") onChange("write a prompt", written(""));
    else {
      const specify = "text";
      onChange("take a prompt from a task", {
        kind,
        task: "country-capital",
        input: "",
        asked: "text",
        specify,
        count: 5,
        seed: 0,
      });
    }
  };
  return (
    <div class="prompt-editor">
      <div class="row">
        <div class="segments" role="radiogroup" aria-label={`How the ${name} is made`}>
          {KINDS.map(([kind, words]) => (
            <label key={kind}>
              <input
                type="radio"
                name={`${name}-kind`}
                checked={value.kind === kind}
                onChange={() => choose(kind)}
              />
              <span>{words}</span>
            </label>
          ))}
        </div>
        {value.kind === "written" && hasChat && (
          <label class="check" title="Put into the model's chat template, as a user's message">
            <input
              type="checkbox"
              checked={value.chat}
              onChange={({ currentTarget }) =>
                onChange("use the chat template", { ...value, chat: currentTarget.checked })
              }
            />
            As a chat message
          </label>
        )}
      </div>
      {value.kind === "written" ? (
        <WrittenEditor {...props} value={value} />
      ) : (
        <TaskPicker {...props} value={value} />
      )}
    </div>
  );
}
