import { CheckpointError } from "../../../errors.ts";
import { renamed, type TensorEntry } from "./tensor-entry.ts";

/** Bytes that are hashed at once: WebCrypto has no hashing bit by bit. Part of the definition of the digest. */
const BLOCK_BYTES = 8 * 2 ** 20;

/**
 * Hashes tensors as they stream by, in whatever order, so that checking a base costs no second reading.
 *
 * The digest is the SHA-256 of the SHA-256s of all blocks of 8 MiB of all tensors' bytes (as they reach the GPU), tensors in
 * the order of their names; the last block of a tensor may be shorter.
 */
export class TensorsDigest {
  /** The same tensors, watched. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly #expected: string;
  readonly #mismatch: (found: string) => string;
  readonly #blocks = new Map<string, Promise<ArrayBuffer[]>>();

  /** `mismatch` says what it means when the digest is not the expected one (64 hexadecimal digits). */
  constructor(
    entries: ReadonlyMap<string, TensorEntry>,
    expected: string,
    mismatch: (found: string) => string,
  ) {
    this.entries = new Map([...entries].map(([name, entry]) => [name, this.#watch(name, entry)]));
    this.#expected = expected;
    this.#mismatch = mismatch;
  }

  #watch(name: string, entry: TensorEntry): TensorEntry {
    const blocks = this.#blocks;
    async function* stream(): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
      const digests: Promise<ArrayBuffer>[] = [];
      for await (const block of entry.stream(BLOCK_BYTES)) {
        digests.push(crypto.subtle.digest("SHA-256", block));
        yield block;
      }
      blocks.set(name, Promise.all(digests));
    }
    return { ...renamed(entry, name), stream };
  }

  /** Reads what has not been read, and throws CheckpointError unless the digest is the expected one. */
  async verify(): Promise<void> {
    const parts: Uint8Array[] = [];
    for (const name of [...this.entries.keys()].sort()) {
      if (!this.#blocks.has(name)) for await (const _ of this.entries.get(name)!.stream());
      for (const digest of await this.#blocks.get(name)!) parts.push(new Uint8Array(digest));
    }
    const whole = await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer();
    const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
    const found = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== this.#expected) throw new CheckpointError(this.#mismatch(found));
  }
}
