import { type Setting, showSetting } from "../patching/setting.ts";

/** A line for each setting that results are of: model, dtypes, adapter. None for what does not say. */
export function settingLines(...results: readonly { readonly setting?: Setting }[]): string[] {
  return [...new Set(results.flatMap(({ setting }) => (setting ? [showSetting(setting)] : [])))];
}
