import type { JSX } from "preact";
import type { Context } from "../../vectors/query.ts";
import { useTasks } from "../../vectors/use-tasks.ts";
import { NumberField } from "./number-field.tsx";

export interface ContextFieldsProps {
  readonly context: Context;
  readonly onChange: (context: Context) => void;
}

/** What stands before the question: with it, a vector of another task has to switch the task. */
export function ContextFields({ context, onChange }: ContextFieldsProps): JSX.Element {
  const { value: tasks = [] } = useTasks();
  const { specify, task } = context;
  const change = (part: Partial<Context>) => onChange({ ...context, ...part });
  return (
    <fieldset class="fields context">
      <legend class="visually-hidden">What stands before the question</legend>
      <label class="field">
        <span>Before the question</span>
        <select
          value={specify}
          onChange={({ currentTarget: { value } }) => change({ specify: value as Context["specify"] })}
        >
          <option value="none">nothing</option>
          <option value="text">examples in words</option>
          <option value="image">examples with pictures</option>
          <option value="instruction">an instruction</option>
        </select>
      </label>
      {specify !== "none" && (
        <label class="field">
          <span>of the task</span>
          <select value={task} onChange={({ currentTarget: { value } }) => change({ task: value })}>
            {tasks.map(({ name }) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      {(specify === "text" || specify === "image") && (
        <>
          <NumberField
            label="Examples"
            value={context.count}
            min={1}
            max={20}
            set={(count) => change({ count })}
          />
          <NumberField
            label="Seed"
            value={context.seed}
            min={0}
            max={99999}
            set={(seed) => change({ seed })}
          />
        </>
      )}
    </fieldset>
  );
}
