/** The kernel that was fastest at a class of work, and the one that the rules would have taken. */
export interface KernelChoice {
  readonly kernel: string;
  readonly us: number;
  readonly rule: string;
  /** Of the rule's kernel, in the same measurement. */
  readonly ruleUs: number;
}

/** A kernel has to be faster than the rule's by so much, so that noise does not decide. */
const GAIN = 0.95;

/**
 * Which of several kernels that compute the same is taken, by class of work (shapes, formats): as forced, else as measured on
 * this adapter, else by the rules that the kernels come with.
 */
export class KernelChoices {
  /** Whether classes are measured. */
  readonly measures: boolean;
  /** Name of a kernel that is taken wherever it fits. For tests and benches. */
  forced: string | undefined;
  readonly #measured = new Map<string, KernelChoice>();
  /** Measurements that are due: microseconds by kernel, the rule's first. */
  readonly #wanted = new Map<string, () => Promise<ReadonlyMap<string, number>>>();
  readonly #failed = new Set<string>();
  readonly #keep: ((choices: ReadonlyMap<string, KernelChoice>) => Promise<void>) | undefined;
  #settling: Promise<void> | undefined;

  constructor({
    measures = false,
    known = new Map(),
    keep,
  }: {
    measures?: boolean;
    known?: ReadonlyMap<string, KernelChoice>;
    /** Keeps all choices for later devices of this adapter. */
    keep?: (choices: ReadonlyMap<string, KernelChoice>) => Promise<void>;
  } = {}) {
    this.measures = measures;
    for (const [name, choice] of known) this.#measured.set(name, choice);
    this.#keep = keep;
  }

  /** By class. */
  get measured(): ReadonlyMap<string, KernelChoice> {
    return this.#measured;
  }

  /** The kernel for a class; undefined where it has not been measured, which is then to be done by `measure`. */
  kernelFor(name: string, measure: () => Promise<ReadonlyMap<string, number>>): string | undefined {
    if (!this.measures) return undefined;
    const choice = this.#measured.get(name);
    if (!choice && !this.#settling && !this.#failed.has(name)) this.#wanted.set(name, measure);
    return choice?.kernel;
  }

  /** Measures what is due. One after the other, and whoever comes meanwhile waits along. */
  async settle(): Promise<void> {
    if (this.#settling) return;
    if (this.#wanted.size === 0) return;
    this.#settling = this.#measure();
    try {
      await this.#settling;
    } finally {
      this.#settling = undefined;
    }
  }

  async #measure(): Promise<void> {
    for (const [name, measure] of [...this.#wanted]) {
      this.#wanted.delete(name);
      const times = await measure().catch(() => undefined);
      if (!times) {
        this.#failed.add(name); // for want of memory, say: the rules decide
        continue;
      }
      const [rule, ruleUs] = [...times][0]!;
      const [kernel, us] = [...times].reduce((best, each) => (each[1] < best[1] ? each : best));
      const [chosen, chosenUs] = us < GAIN * ruleUs ? [kernel, us] : [rule, ruleUs];
      this.#measured.set(name, { kernel: chosen, us: chosenUs, rule, ruleUs });
    }
    await this.#keep?.(this.#measured);
  }
}
