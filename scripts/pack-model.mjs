import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { cache, root } from "./cache.mjs";
import { command, step } from "./command.mjs";

/** What the shipped model is made of, and what makes one folder of it. */
const PARTS = ["weights/vlm", "weights/llm", "src/model/export", "src/model/checkpoint"];

/** Those of other states of the checkout, or of other checkouts, are kept for two weeks. */
const KEPT_MS = 14 * 24 * 3600 * 1000;

/**
 * The folder of the shipped model in 8 bits: adapters merged, in one file. Kept in the cache until a part of it changes. Needs the
 * build and SmolLM2.
 */
export async function ensurePackedModel() {
  const hash = createHash("sha256");
  for (const part of PARTS)
    for (const file of filesIn(part)) hash.update(file).update(readFileSync(join(root, file)));
  const folder = join(cache, "models", `vlm-int8-${hash.digest("hex").slice(0, 16)}`);
  if (existsSync(folder)) return folder;
  const incoming = `${folder}.incoming-${process.pid}`;
  await step("the shipped model in 8 bits", async () => {
    mkdirSync(join(cache, "models"), { recursive: true });
    const main = join(root, "dist", "cli", "main.js");
    const formats = ["--format", "int8", "--embedding", "int8", "--head", "int8"];
    try {
      await command(process.execPath, [main, "quantise", "xpatch:vlm", ...formats, "--out", incoming]);
      // Whoever else made it at the same time made the same.
      if (!existsSync(folder)) renameSync(incoming, folder);
      for (const name of readdirSync(join(cache, "models"))) {
        const older = join(cache, "models", name);
        const isOld = /^vlm-int8-\w+$/.test(name) && Date.now() - statSync(older).mtimeMs > KEPT_MS;
        if (isOld) rmSync(older, { recursive: true, force: true });
      }
    } finally {
      rmSync(incoming, { recursive: true, force: true });
    }
  });
  return folder;
}

/** The files of a folder of the checkout, by their paths from the root, in order. */
export function filesIn(folder) {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length))
    .sort();
}
