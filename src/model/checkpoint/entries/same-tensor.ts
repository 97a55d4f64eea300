import { renamed, type TensorEntry } from "./tensor-entry.ts";

/**
 * A tensor that is compared with another as it streams by: `same()` says, once it has been read, whether both have the same
 * bytes. The other is read only up to the first difference.
 */
export function comparedWith(
  entry: TensorEntry,
  other: TensorEntry,
): { readonly entry: TensorEntry; same(): boolean } {
  let same = false;
  async function* stream(chunkBytes?: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    same =
      entry.stored === other.stored && entry.dtype === other.dtype && entry.byteLength === other.byteLength;
    const others = same ? other.stream(chunkBytes) : undefined;
    for await (const chunk of entry.stream(chunkBytes)) {
      if (same) {
        const { value } = await others!.next();
        same = value !== undefined && equalBytes(chunk, value);
      }
      yield chunk;
    }
  }
  return { entry: { ...renamed(entry, entry.name), stream }, same: () => same };
}

/** Whether two tensors have the same bytes. */
export async function sameTensor(a: TensorEntry, b: TensorEntry): Promise<boolean> {
  const compared = comparedWith(a, b);
  for await (const _ of compared.entry.stream()) if (!compared.same()) return false;
  return compared.same();
}

function equalBytes(a: Uint8Array<ArrayBuffer>, b: Uint8Array<ArrayBuffer>): boolean {
  if (a.length !== b.length) return false;
  const words = Math.floor(a.length / 4);
  const [x, y] = [
    new Uint32Array(a.buffer, a.byteOffset, words),
    new Uint32Array(b.buffer, b.byteOffset, words),
  ];
  for (let i = 0; i < words; i++) if (x[i] !== y[i]) return false;
  for (let i = 4 * words; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
