import type { JSX } from "preact";
import { useAsked } from "../ask.ts";
import { model } from "../model.ts";
import { Notice } from "../ui/notice.tsx";
import { PictureChip } from "./picture-chip.tsx";
import { type Asked, MOST_EXAMPLES, type PromptDoc, type Specify, type TaskPrompt } from "./prompt-doc.ts";

export interface TaskPickerProps {
  readonly name: string;
  readonly value: TaskPrompt;
  readonly onChange: (label: string, value: PromptDoc, same?: string) => void;
}

const SPECIFIED: readonly [Specify, string][] = [
  ["none", "nothing: the question alone"],
  ["text", "examples in words"],
  ["image", "examples with pictures"],
  ["instruction", "an instruction"],
];

/** A question of a task that comes with xpatch, behind examples or an instruction. */
export function TaskPicker({ name, value, onChange }: TaskPickerProps): JSX.Element {
  const { value: found, error } = useAsked(["tasks"], ({ client, signal }) => client.tasks({ signal }));
  const state = model.value;
  const takesPictures = state.status === "ready" && state.summary.takesPictures;
  if (error) {
    return (
      <Notice kind="bad" title="The tasks could not be read">
        <p>{error.message}</p>
      </Notice>
    );
  }
  const tasks = found?.tasks ?? [];
  const task = tasks.find((each) => each.name === value.task);
  const items = task?.items ?? [];
  const item = items.find(({ input }) => input === value.input);
  const change = (part: Partial<TaskPrompt>) => onChange(`change the ${name}`, { ...value, ...part });
  const hasPictures = takesPictures && items.some(({ picture }) => picture);
  const chooseTask = (chosen: string) => {
    const { items: others = [] } = tasks.find((each) => each.name === chosen) ?? {};
    const same = others.some(({ input }) => input === value.input);
    const pictures = others.some(({ picture }) => picture);
    change({
      task: chosen,
      input: same ? value.input : (others.find(({ split }) => split === "test")?.input ?? ""),
      ...(!pictures && { asked: "text" as const }),
      ...(!pictures && value.specify === "image" && { specify: "text" as const }),
    });
  };
  return (
    <div class="task-picker">
      <label>
        <span class="label">Task</span>
        <select value={value.task} onChange={({ currentTarget }) => chooseTask(currentTarget.value)}>
          {!task && <option value={value.task}>{value.task}</option>}
          {tasks.map((each) => (
            <option key={each.name} value={each.name}>
              {each.name}
            </option>
          ))}
        </select>
      </label>
      <label>
        <span class="label">Asked about</span>
        <select value={value.input} onChange={({ currentTarget }) => change({ input: currentTarget.value })}>
          {!item && <option value={value.input}>{value.input || "choose…"}</option>}
          {items.map(({ input, split }) => (
            <option key={input} value={input}>
              {split === "test" ? input : `${input} (${split})`}
            </option>
          ))}
        </select>
      </label>
      <label>
        <span class="label">Asked by</span>
        <select
          value={value.asked}
          onChange={({ currentTarget }) => change({ asked: currentTarget.value as Asked })}
        >
          <option value="text">name</option>
          <option value="image" disabled={!hasPictures}>
            picture
          </option>
        </select>
      </label>
      <label>
        <span class="label">Told by</span>
        <select
          value={value.specify}
          onChange={({ currentTarget }) => change({ specify: currentTarget.value as Specify })}
        >
          {SPECIFIED.map(([kind, words]) => (
            <option
              key={kind}
              value={kind}
              disabled={(kind === "image" && !hasPictures) || (kind === "instruction" && !task?.instruction)}
            >
              {words}
            </option>
          ))}
        </select>
      </label>
      {(value.specify === "text" || value.specify === "image") && (
        <>
          <label>
            <span class="label">Examples</span>
            <input
              type="number"
              min={1}
              max={MOST_EXAMPLES}
              value={value.count}
              onInput={({ currentTarget }) => change({ count: whole(currentTarget, 1, MOST_EXAMPLES) })}
            />
          </label>
          <label>
            <span class="label">Seed</span>
            <input
              type="number"
              min={0}
              value={value.seed}
              onInput={({ currentTarget }) => change({ seed: whole(currentTarget, 0, 2 ** 31) })}
            />
          </label>
        </>
      )}
      {value.asked === "image" && item?.picture && (
        <PictureChip picture={{ kind: "task", task: value.task, input: value.input }} />
      )}
      {item && (
        <p class="soft right">
          Right: <span class="mono">{item.outputs.join(" or ")}</span>
        </p>
      )}
    </div>
  );
}

function whole({ valueAsNumber }: HTMLInputElement, least: number, most: number): number {
  return Math.min(most, Math.max(least, Math.round(valueAsNumber) || least));
}
