interface Answer {
  readonly value: unknown;
  readonly bytes: number;
}

/** Answers by what they were computed from, so many and of so many bytes together at the most; the one used last goes last. */
export class KnownAnswers {
  readonly #most: { readonly bytes: number; readonly answers: number };
  readonly #answers = new Map<string, Answer>();
  #bytes = 0;

  constructor(most: { readonly bytes: number; readonly answers: number }) {
    this.#most = most;
  }

  /** What they take, by {@link bytesOf}. */
  get bytes(): number {
    return this.#bytes;
  }

  has(key: string): boolean {
    return this.#answers.has(key);
  }

  get(key: string): unknown {
    const answer = this.#answers.get(key);
    if (!answer) return undefined;
    this.#answers.delete(key);
    this.#answers.set(key, answer);
    return answer.value;
  }

  /** Keeps an answer, the newest whatever its size. */
  keep(key: string, value: unknown): void {
    this.#drop(key);
    const bytes = bytesOf(value) + bytesOf(key);
    this.#answers.set(key, { value, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#answers.keys()) {
      const fits = this.#bytes <= this.#most.bytes && this.#answers.size <= this.#most.answers;
      if (fits || oldest === key) return;
      this.#drop(oldest);
    }
  }

  #drop(key: string): void {
    const answer = this.#answers.get(key);
    if (!answer) return;
    this.#answers.delete(key);
    this.#bytes -= answer.bytes;
  }
}

/** About what plain data takes in memory: eight bytes for each thing, two for each character, and those of arrays of bytes. */
export function bytesOf(value: unknown): number {
  if (typeof value === "string") return 8 + 2 * value.length;
  if (typeof value !== "object" || value === null) return 8;
  if (ArrayBuffer.isView(value)) return 8 + value.byteLength;
  if (value instanceof Map) return bytesOf([...value]);
  if (value instanceof Blob) return 8; // where it lies is the browser's affair
  return Object.entries(value).reduce((sum, [key, each]) => sum + 2 * key.length + bytesOf(each), 8);
}
