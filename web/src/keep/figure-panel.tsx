import type { ComponentChildren, JSX } from "preact";
import type { Setting } from "../../../src/patching/setting.ts";
import { Panel } from "../ui/panel.tsx";
import { Provenance } from "../ui/provenance.tsx";
import { Export, type ExportProps } from "./export.tsx";

export interface FigurePanelProps {
  readonly title: string;
  readonly busy: boolean;
  /** What its numbers come from, once there are any. */
  readonly setting: Setting | undefined;
  /** How they are saved, once there is something to save. */
  readonly save: ExportProps | undefined;
  readonly children?: ComponentChildren;
}

/** A panel that shows numbers of a model as a figure, which can be saved. */
export function FigurePanel({ title, busy, setting, save, children }: FigurePanelProps): JSX.Element {
  return (
    <Panel
      title={title}
      busy={busy}
      footer={setting && <Provenance setting={setting} />}
      actions={save && <Export {...save} />}
    >
      {children}
    </Panel>
  );
}
