import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./cache.mjs";
import { command, step } from "./command.mjs";

const stamp = join(root, "dist", ".sources");

/** Compiles src/ and experiments/ into dist/, unless dist/ was made from these very sources. */
export async function ensureBuild() {
  const hash = hashOfSources();
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === hash) return;
  await step("build", async () => {
    rmSync(join(root, "dist"), { recursive: true, force: true });
    const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
    await command(process.execPath, [tsc, "-b", "tsconfig.build.json"], { cwd: root });
    writeFileSync(stamp, hash);
  });
}

function hashOfSources() {
  const sources = ["src", "experiments"]
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
  const settings = ["tsconfig.json", "tsconfig.build.json", "package-lock.json"].map((file) =>
    join(root, file),
  );
  const hash = createHash("sha256");
  for (const file of [...sources.sort(), ...settings]) hash.update(`${file}\0`).update(readFileSync(file));
  return hash.digest("hex");
}
