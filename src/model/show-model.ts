import type { SiteMap } from "./walk/site-shapes.ts";

/** What the text of a model is made of. */
interface Shown {
  readonly name: string;
  readonly family: string;
  readonly storedDtypes: readonly string[];
  readonly adapters: readonly string[];
  readonly sites: SiteMap;
}

/** A model for the console: what it is, its sizes, and where it is, a line each. */
export function showModel(kind: string, model: Shown, facts: readonly string[], place: string): string {
  const { name, family, storedDtypes, adapters, sites } = model;
  const lora = adapters.length > 0 ? ` with LoRA ${adapters.join(", ")}` : "";
  const stacks = Object.entries(sites).map(([stack, { layers, width, heads, kvHeads, headDim }]) => {
    const shared = kvHeads === heads ? "" : ` on ${kvHeads} of keys and values`;
    return `${stack}: ${layers} layers, width ${width}, ${heads} heads of ${headDim}${shared}`;
  });
  return [
    `${kind} ${name} (${family}, ${storedDtypes.join(" and ")})${lora}`,
    `  ${[...stacks, ...facts].join("; ")}`,
    `  ${place}`,
  ].join("\n");
}
