import type { FileRecipe } from "./recipe.ts";

/** Files of vectors that the reader brought, for as long as the page is there. */
const files = new Map<string, Uint8Array>();

export async function takeVectorFile(file: File): Promise<FileRecipe> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  files.set(hash, bytes);
  return { kind: "file", hash, name: file.name.slice(0, 200) };
}

/** Throws where the file is not here, as behind a link from somebody else. */
export function vectorFile({ hash, name }: FileRecipe): Uint8Array {
  const bytes = files.get(hash);
  if (bytes) return bytes;
  throw new Error(`${name} lies with whoever opened it: load the same file once more`);
}
