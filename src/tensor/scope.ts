import type { Tensor } from "./tensor.ts";

/**
 * Owns the tensors that were made while it was current. A scope is entered by `enter(fn)` any number of times, so a
 * suspended computation (a generator) can leave its scope and come back, and several can be interleaved.
 */
export class Scope {
  readonly #tensors = new Set<Tensor>();
  readonly #holder: { current: Scope | undefined };

  constructor(holder: { current: Scope | undefined }) {
    this.#holder = holder;
  }

  /** Runs `fn` with this scope current. */
  enter<T>(fn: () => T): T {
    const outer = this.#holder.current;
    this.#holder.current = this;
    try {
      return fn();
    } finally {
      this.#holder.current = outer;
    }
  }

  /** Frees this tensor with the others. */
  adopt(tensor: Tensor): void {
    this.#tensors.add(tensor);
  }

  /** Leaves this tensor to whoever has it. */
  forget(tensor: Tensor): void {
    this.#tensors.delete(tensor);
  }

  /** Hands every tensor found in `value` (itself, or in arrays, maps and plain objects) to the scope now current. */
  release<T>(value: T): T {
    for (const tensor of tensorsIn(value)) {
      if (!this.#tensors.delete(tensor)) continue;
      tensor.scope = this.#holder.current;
      this.#holder.current?.adopt(tensor);
    }
    return value;
  }

  /** Disposes of what is left. */
  dispose(): void {
    for (const tensor of this.#tensors) tensor.dispose();
    this.#tensors.clear();
  }
}

function* tensorsIn(value: unknown): Generator<Tensor> {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return;
  if (isTensor(value)) yield value;
  else if (Array.isArray(value) || value instanceof Set) for (const item of value) yield* tensorsIn(item);
  else if (value instanceof Map) for (const item of value.values()) yield* tensorsIn(item);
  else if (Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) yield* tensorsIn(item);
  }
}

function isTensor(value: object): value is Tensor {
  return "storage" in value && "scope" in value;
}
