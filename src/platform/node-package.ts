import { fileURLToPath } from "node:url";

/** The folder of this package, a checkout or installed: src/ and dist/ have the same folders. */
export function packageFolder(): string {
  return fileURLToPath(new URL("../..", import.meta.url)).replace(/[\\/]$/, "");
}
