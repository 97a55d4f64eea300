import type { JSX } from "preact";
import { model } from "../../model.ts";
import { store } from "../../state.ts";
import { ChoiceField } from "../../ui/choice-field.tsx";
import { NumberField } from "../../ui/number-field.tsx";
import { Panel } from "../../ui/panel.tsx";
import { toastError } from "../../ui/toasts.tsx";
import { shelve } from "../../vectors/shelve.ts";
import { useTasks } from "../../vectors/use-tasks.ts";
import { ExampleFields } from "./example-fields.tsx";
import { type Maker, VECTORS } from "./vectors-slice.ts";

/** The form for a new vector: from examples, or from an instruction. */
export function MakePanel(): JSX.Element {
  const { maker } = store.slice(VECTORS).value;
  const { value: tasks = [], error } = useTasks();
  const change = (part: Partial<Maker>, same?: string) =>
    store.set(
      VECTORS,
      "change the new vector",
      (slice) => ({ ...slice, maker: { ...slice.maker, ...part } }),
      same,
    );
  const state = model.value;
  const task = tasks.find(({ name }) => name === maker.task);
  const takesPictures = state.status === "ready" && state.summary.takesPictures;
  const hasPictures = takesPictures && (task?.items.some(({ picture }) => picture) ?? false);
  const make = (event: SubmitEvent) => {
    event.preventDefault();
    const { kind, task: name, asked, count, seed, items, text } = maker;
    try {
      shelve(
        kind === "instruction"
          ? { kind, text }
          : { kind, task: name, asked: hasPictures ? asked : "text", count, seed, items },
      );
    } catch (problem) {
      toastError(problem);
    }
  };
  return (
    <Panel title="Make a vector">
      {error && <p class="bad-words">{error.message}</p>}
      <form class="form" onSubmit={make} aria-label="Make a vector">
        <div class="segments" role="radiogroup" aria-label="What says the task">
          {(["examples", "instruction"] as const).map((kind) => (
            <label key={kind}>
              <input
                type="radio"
                name="maker-kind"
                checked={maker.kind === kind}
                onChange={() => change({ kind })}
              />
              <span>{kind === "examples" ? "Examples" : "Instruction"}</span>
            </label>
          ))}
        </div>
        <ChoiceField
          label="Task"
          value={maker.task}
          choices={tasks.map(({ name }) => name)}
          set={(next) => {
            const instruction = tasks.find(({ name }) => name === next)?.instruction;
            change({ task: next, ...(instruction !== undefined && { text: instruction }) });
          }}
        />
        {maker.kind === "instruction" ? (
          <label class="field wide">
            <span>Instruction</span>
            <textarea
              rows={2}
              value={maker.text}
              onInput={({ currentTarget }) => change({ text: currentTarget.value }, "maker text")}
            />
          </label>
        ) : (
          <>
            <ChoiceField
              label="Shown as"
              value={hasPictures ? maker.asked : "text"}
              choices={[
                ["text", "text"],
                ["image", "pictures", hasPictures],
              ]}
              set={(asked) => change({ asked })}
            />
            <div class="fields">
              <ExampleFields value={maker} change={change} />
              <NumberField
                label="Prompts"
                value={maker.items}
                min={1}
                max={100}
                set={(items) => change({ items })}
              />
            </div>
          </>
        )}
        <button
          type="submit"
          class="primary"
          disabled={state.status !== "ready" || (maker.kind === "instruction" && maker.text.trim() === "")}
        >
          Make
        </button>
      </form>
    </Panel>
  );
}
