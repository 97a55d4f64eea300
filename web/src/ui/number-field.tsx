import type { JSX } from "preact";

export interface NumberFieldProps {
  readonly label: string;
  readonly value: number;
  readonly min: number;
  readonly max: number;
  readonly set: (value: number) => void;
}

/** A whole number within bounds; what lies outside is brought to the nearest. */
export function NumberField({ label, value, min, max, set }: NumberFieldProps): JSX.Element {
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="number"
        min={min}
        max={max}
        step={1}
        value={value}
        onChange={({ currentTarget }) => {
          const given = currentTarget.valueAsNumber;
          const whole = Number.isFinite(given) ? Math.min(max, Math.max(min, Math.round(given))) : value;
          currentTarget.value = String(whole);
          if (whole !== value) set(whole);
        }}
      />
    </label>
  );
}
