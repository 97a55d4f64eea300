/** What to call an adapter. */
export function adapterName(info: { description: string; device: string; vendor: string }): string {
  return info.description || info.device || info.vendor || "unnamed";
}
