import { CacheVault } from "./cache-vault.ts";
import { OpfsVault } from "./opfs-vault.ts";
import type { Vault } from "./vault.ts";

/** Where this browser keeps models; undefined where it lets the page keep nothing. */
export async function openVault(): Promise<Vault | undefined> {
  return (await OpfsVault.open()) ?? (await CacheVault.open());
}
