import type { JSX } from "preact";

export interface ChoiceFieldProps<T extends string> {
  readonly label: string;
  readonly value: T;
  /** In words; one alone is its own words. `false` for what cannot be chosen now. */
  readonly choices: readonly (T | readonly [value: T, words: string, canBe?: boolean])[];
  readonly set: (value: T) => void;
}

/** One of several things. What is chosen is shown also where it is none of them, as in a document of somebody else's. */
export function ChoiceField<T extends string>({
  label,
  value,
  choices,
  set,
}: ChoiceFieldProps<T>): JSX.Element {
  const all = choices.map((choice) => (typeof choice === "string" ? ([choice, choice] as const) : choice));
  return (
    <label class="field">
      <span>{label}</span>
      <select value={value} onChange={({ currentTarget }) => set(currentTarget.value as T)}>
        {!all.some(([each]) => each === value) && <option value={value}>{value || "choose…"}</option>}
        {all.map(([each, words, canBe = true]) => (
          <option key={each} value={each} disabled={!canBe}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}
