import type { JSX } from "preact";
import { type Setting, showSetting } from "../../../src/patching/setting.ts";

/** What numbers come from, for the last line of a panel: model, dtypes, adapter. */
export function Provenance({ setting }: { setting: Setting }): JSX.Element {
  return <span>{showSetting(setting)}</span>;
}
