import type { DeviceError } from "../errors.ts";

/**
 * What becomes of something that WebGPU does later: a batch of commands, the allocation of a buffer, the compilation of a
 * kernel. WebGPU reports an error to whoever asks next, and skips all that an invalid object is used in, so results that
 * were never computed look like any others. Fates say whose results those are: what comes to nothing takes along what was
 * made from it, and nothing else.
 */
export class Fate {
  readonly #parents = new Set<Fate>();
  #pending = 0;
  #failure: DeviceError | undefined;
  #fine = false;

  /** It can't succeed where `other` does not. */
  dependOn(other: Fate | undefined): void {
    if (!other || other === this || other.#fine) return;
    this.#parents.add(other);
    this.#fine = false;
  }

  /** `outcome` will bring an error, or nothing. */
  expect(outcome: Promise<DeviceError | undefined>): Promise<void> {
    this.#pending++;
    this.#fine = false;
    return outcome.then((failure) => {
      this.#failure ??= failure;
      this.#pending--;
      this.#settle();
    });
  }

  /** Whether it is known to have gone well, with all that it depends on. */
  get fine(): boolean {
    return this.#fine;
  }

  /** The error that it came to grief by, the cause rather than its consequences; of what is known by now. */
  get failure(): DeviceError | undefined {
    let found: DeviceError | undefined;
    const seen = new Set<Fate>();
    const open: Fate[] = [this];
    for (let fate = open.pop(); fate; fate = open.pop()) {
      if (fate.#fine || seen.has(fate)) continue;
      seen.add(fate);
      found = fate.#failure ?? found; // ancestors come later
      open.push(...fate.#parents);
    }
    return found;
  }

  /** Forgets its history once all of it has gone well. */
  #settle(): void {
    if (this.#pending > 0 || this.#failure) return;
    for (const parent of this.#parents) {
      if (parent.#fine) this.#parents.delete(parent);
    }
    this.#fine = this.#parents.size === 0;
  }
}

/** Runs `fn` within error scopes of its own; what WebGPU reports of it, `fate` will learn. */
export type Guard = <T>(what: string, fate: Fate, fn: () => T) => T;
