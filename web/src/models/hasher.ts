import { sha1 } from "@noble/hashes/legacy.js";
import { sha256 } from "@noble/hashes/sha2.js";
import type { Algorithm } from "./manifest.ts";

/** A hash that is taken as bytes come; WebCrypto wants them all at once. */
export interface Hasher {
  update(bytes: Uint8Array): void;
  /** In hexadecimal digits. */
  digest(): string;
}

/** `size` is that of the whole file, which git's hash begins with. */
export function hasher(algorithm: Algorithm, size: number): Hasher {
  const hash = algorithm === "sha256" ? sha256.create() : sha1.create();
  if (algorithm === "git") hash.update(new TextEncoder().encode(`blob ${size}\0`));
  return {
    update: (bytes) => void hash.update(bytes),
    digest: () => Array.from(hash.digest(), (byte) => byte.toString(16).padStart(2, "0")).join(""),
  };
}
