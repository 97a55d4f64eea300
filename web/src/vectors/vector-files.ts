import type { FileRecipe } from "./recipe.ts";

/** Files of vectors that the reader brought, for as long as the page is there. */
const files = new Map<string, Uint8Array>();

export async function takeVectorFile(file: File): Promise<FileRecipe> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  files.set(hash, bytes);
  const place = placeIn(bytes);
  return { kind: "file", hash, name: file.name.slice(0, 200), ...(place !== undefined && { place }) };
}

/** The site of a file that holds what one place has (src/session/state/vector-file.ts); undefined for all others, damaged ones too. */
function placeIn(bytes: Uint8Array): string | undefined {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const header = new TextDecoder().decode(bytes.subarray(8, 8 + Number(view.getBigUint64(0, true))));
    const { format, site } = JSON.parse(header).__metadata__;
    return format === "xpatch.activation.1" ? String(site).slice(0, 100) : undefined;
  } catch {
    return undefined; // the session says what is wrong with it
  }
}

/** Throws where the file is not here, as behind a link from somebody else. */
export function vectorFile({ hash, name }: FileRecipe): Uint8Array {
  const bytes = files.get(hash);
  if (bytes) return bytes;
  throw new Error(`${name} lies with whoever opened it: load the same file once more`);
}
