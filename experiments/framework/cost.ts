/** What was computed, and what the plain method would have: one full forward pass a prompt and patch. */
export interface Cost {
  /** Rows of the language model times layers computed. */
  readonly rowLayers: number;
  readonly plainRowLayers: number;
  /** Forward passes of the plain method. */
  readonly plainPasses: number;
}

export const NO_COST: Cost = { rowLayers: 0, plainRowLayers: 0, plainPasses: 0 };

export function addCosts(a: Cost, b: Cost): Cost {
  return {
    rowLayers: a.rowLayers + b.rowLayers,
    plainRowLayers: a.plainRowLayers + b.plainRowLayers,
    plainPasses: a.plainPasses + b.plainPasses,
  };
}

/** The forward passes, of the plain method's mean size, that `rowLayers` amount to. */
export function forwardPassEquivalents({ rowLayers, plainRowLayers, plainPasses }: Cost): number {
  return plainRowLayers === 0 ? 0 : (rowLayers * plainPasses) / plainRowLayers;
}
