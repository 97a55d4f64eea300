/** How far back a rate looks. In milliseconds. */
const WINDOW = 60_000;
/** Parts of the window that are told apart. */
const PARTS = 60;

/** How many things come in a second, over the last minute. */
export class Rate {
  readonly #begin = performance.now();
  /** When a part of the window began, and what came in it. */
  #parts: { readonly from: number; count: number }[] = [];

  add(count: number): void {
    if (count === 0) return;
    const now = performance.now();
    const last = this.#parts.at(-1);
    if (last && now - last.from < WINDOW / PARTS) last.count += count;
    else this.#parts.push({ from: now, count });
  }

  get perSecond(): number {
    const now = performance.now();
    this.#parts = this.#parts.filter(({ from }) => now - from < WINDOW);
    const count = this.#parts.reduce((sum, part) => sum + part.count, 0);
    const seconds = Math.min(WINDOW, now - this.#begin) / 1000;
    return seconds > 0 ? count / seconds : 0;
  }
}
