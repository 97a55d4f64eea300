import type { JSX } from "preact";

export interface ProgressProps {
  /** What is being done. */
  readonly label: string;
  /** How far it is, and of how much; without `total` nobody knows. */
  readonly done?: number;
  readonly total?: number | undefined;
  /** The numbers in words, in place of a percentage. */
  readonly words?: string;
  readonly onCancel?: (() => void) | undefined;
}

/** A bar with words. */
export function ProgressBar({ label, done = 0, total, words, onCancel }: ProgressProps): JSX.Element {
  const percent = total ? `${Math.floor((100 * done) / total)} %` : "";
  return (
    <div class="progress">
      <div class="words">
        <span>{label}</span>
        <span class="number soft">{words ?? percent}</span>
      </div>
      <div class="row">
        <progress class="grow" aria-label={label} max={total || 1} {...(total && { value: done })} />
        {onCancel && (
          <button type="button" onClick={onCancel}>
            Cancel
          </button>
        )}
      </div>
    </div>
  );
}
