import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Figure } from "../../../src/figures/figure.ts";
import { saveAs } from "../ui/save.ts";
import { toastError } from "../ui/toasts.tsx";

export interface ExportProps {
  /** Of the files, without an end. */
  readonly name: string;
  /** The figure of what is shown, drawn when it is asked for: that loads what draws. */
  readonly figure?: (() => Promise<Figure>) | undefined;
  readonly csv?: (() => string) | undefined;
}

/** Saves what a panel shows: its figure as SVG or PNG, its numbers as CSV. */
export function Export({ name, figure, csv }: ExportProps): JSX.Element {
  const [busy, setBusy] = useState(false);
  const save = async (work: () => Promise<void> | void) => {
    setBusy(true);
    try {
      await work();
    } catch (error) {
      toastError(error);
    } finally {
      setBusy(false);
    }
  };
  const saveSvg = async () => saveAs(`${name}.svg`, await (await figure!()).svg(), "image/svg+xml");
  const savePng = async () => saveAs(`${name}.png`, await (await figure!()).png(), "image/png");
  return (
    <fieldset class="export" disabled={busy}>
      <legend class="visually-hidden">Save {name}</legend>
      {figure && (
        <>
          <button type="button" class="quiet" title="Save the figure as SVG" onClick={() => save(saveSvg)}>
            SVG
          </button>
          <button type="button" class="quiet" title="Save the figure as PNG" onClick={() => save(savePng)}>
            PNG
          </button>
        </>
      )}
      {csv && (
        <button
          type="button"
          class="quiet"
          title="Save the numbers as CSV"
          onClick={() => save(() => saveAs(`${name}.csv`, csv(), "text/csv"))}
        >
          CSV
        </button>
      )}
    </fieldset>
  );
}
