/**
 * A 32-bit hash of a text: FNV-1a over its UTF-8 bytes, then the finaliser of MurmurHash3, so that near texts lie far
 * apart. Not cryptographic. Splits and draws of examples follow it, so it must never change.
 */
export function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
