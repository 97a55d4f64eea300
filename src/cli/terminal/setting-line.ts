import type { Setting } from "../../patching/setting.ts";

/** A {@link Setting} on one line. */
export function formatSetting({ model, family, dtypes, adapters, adapter, seed }: Setting): string {
  const parts = [`${model} (${family}, ${dtypes.join(" and ")})`];
  if (adapters) parts.push(`LoRA ${adapters.join(", ")}`);
  parts.push(adapter);
  if (seed !== undefined) parts.push(`seed ${seed}`);
  return parts.join(" · ");
}
