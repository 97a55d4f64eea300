import type { Lab } from "./lab.ts";

/** What tells one cell of a kind from the others. */
export type Params = Readonly<Record<string, string | number>>;

/**
 * The smallest piece of an experiment that is kept: computed once, stored under its key, and shared by all experiments
 * that name it. R is its result, plain data that survives JSON.
 */
export interface Cell<R> {
  readonly kind: string;
  readonly params: Params;
  /** `layer-sweep query=image task=food-color`: the kind and the parameters in alphabetical order. */
  readonly key: string;
  readonly compute: (lab: Lab) => Promise<R>;
}

/**
 * A kind of cell. What `compute` needs of other cells it asks for with `lab.run`; it may depend on nothing but the lab's
 * setting, its parameters and such results, so that a resumed run gives what an unbroken one gives. Parameters may be
 * left out.
 *
 * @example const layerSweep = defineCell("layer-sweep", async (lab, { task }: { task: string }) => …);
 */
export function defineCell<P extends { readonly [K in keyof P]: string | number | undefined }, R>(
  kind: string,
  compute: (lab: Lab, params: P) => Promise<R>,
): (params: P) => Cell<R> {
  return (params) => ({
    kind,
    params: given(params),
    key: [
      kind,
      ...Object.entries(given(params))
        .map(([name, value]) => `${name}=${value}`)
        .sort(),
    ].join(" "),
    compute: (lab) => compute(lab, params),
  });
}

/** Without what is left open, which is no part of a key. */
function given(params: object): Params {
  return Object.fromEntries(Object.entries(params).filter(([, value]) => value !== undefined));
}
