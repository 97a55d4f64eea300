interface Named {
  readonly description: string;
  readonly device: string;
  readonly vendor: string;
  readonly architecture?: string;
}

/** What to call an adapter. Browsers keep description and device to themselves: there it is "nvidia ampere". */
export function adapterName({ description, device, vendor, architecture = "" }: Named): string {
  return description || device || `${vendor} ${architecture}`.trim() || "unnamed";
}
