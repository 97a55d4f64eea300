import type { JSX } from "preact";
import { ChoiceField } from "../../ui/choice-field.tsx";
import type { Context } from "../../vectors/query.ts";
import { useTasks } from "../../vectors/use-tasks.ts";
import { ExampleFields } from "./example-fields.tsx";

export interface ContextFieldsProps {
  readonly context: Context;
  readonly onChange: (context: Context) => void;
}

const SPECIFY: readonly [Context["specify"], string][] = [
  ["none", "nothing"],
  ["text", "examples in words"],
  ["image", "examples with pictures"],
  ["instruction", "an instruction"],
];

/** What stands before the question: with it, a vector of another task has to switch the task. */
export function ContextFields({ context, onChange }: ContextFieldsProps): JSX.Element {
  const { value: tasks = [] } = useTasks();
  const { specify, task } = context;
  const change = (part: Partial<Context>) => onChange({ ...context, ...part });
  return (
    <fieldset class="fields context">
      <legend class="visually-hidden">What stands before the question</legend>
      <ChoiceField
        label="Before the question"
        value={specify}
        choices={SPECIFY}
        set={(next) => change({ specify: next })}
      />
      {specify !== "none" && (
        <ChoiceField
          label="of the task"
          value={task}
          choices={tasks.map(({ name }) => name)}
          set={(next) => change({ task: next })}
        />
      )}
      {(specify === "text" || specify === "image") && <ExampleFields value={context} change={change} />}
    </fieldset>
  );
}
