import type { JSX } from "preact";
import { NumberField } from "../../ui/number-field.tsx";

export interface ExamplesOf {
  readonly count: number;
  readonly seed: number;
}

/** How many examples are shown, and which are drawn. */
export function ExampleFields({
  value: { count, seed },
  change,
}: {
  value: ExamplesOf;
  change: (part: Partial<ExamplesOf>) => void;
}): JSX.Element {
  return (
    <>
      <NumberField label="Examples" value={count} min={1} max={20} set={(next) => change({ count: next })} />
      <NumberField label="Seed" value={seed} min={0} max={99999} set={(next) => change({ seed: next })} />
    </>
  );
}
