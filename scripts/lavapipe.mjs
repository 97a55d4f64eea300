import { cpSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { libraryPath, sharedLibraries, unpackPackages, updatePackageLists, versionsOf } from "./apt.mjs";
import { command, SetupError } from "./command.mjs";

// Dawn refuses the Vulkan of Mesa 22, which is Debian 12's own.
const OLDEST_MESA = 23;

// Mesa 26 crashes on compute shaders where LLVM is 22, and elsewhere (https://github.com/mmozeiko/build-mesa/issues/20): only where
// there is nothing older; the self-test has the last word.
const FIRST_DOUBTFUL_MESA = 26;

// Node has these loaded already; a second copy would clash.
const OF_THE_PROCESS = /^(ld-linux|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so)/;

/** Mesa's Vulkan driver for CPUs, from the Debian or Ubuntu package, into `folder` with its driver.json. */
export async function installLavapipe(folder, progress) {
  await updatePackageLists();
  const versions = await versionsOf("mesa-vulkan-drivers");
  const recent = versions.filter(({ version }) => Number.parseInt(version, 10) >= OLDEST_MESA);
  const { suite } = preferredMesa(recent) ?? {};
  if (!suite) {
    const found = versions.map(({ version }) => version).join(", ") || "none";
    throw new SetupError(`needs the package mesa-vulkan-drivers ${OLDEST_MESA} or later; found ${found}`);
  }
  const unpacked = join(folder, "unpacked");
  await unpackPackages([`mesa-vulkan-drivers/${suite}`, "libvulkan1"], unpacked, progress);

  const packaged = sharedLibraries(unpacked);
  const searchPath = libraryPath(packaged);
  const pathOf = (name) => {
    const found = packaged.find((library) => library.name === name);
    return found && join(found.folder, name);
  };

  const driver = pathOf("libvulkan_lvp.so");
  const loader = pathOf("libvulkan.so.1");
  if (!driver || !loader)
    throw new SetupError("mesa-vulkan-drivers came without libvulkan_lvp.so or its loader");

  const keep = (path, name) => cpSync(path, join(folder, name), { dereference: true });
  keep(driver, "libvulkan_lvp.so");
  keep(loader, "libvulkan.so.1");
  const needed = (await neededBy(driver, searchPath)).filter(
    ({ name, path }) => path.startsWith(folder) && !OF_THE_PROCESS.test(name),
  );
  const sizes = new Map();
  for (const { name, path } of needed) {
    keep(path, name);
    sizes.set(name, (await neededBy(path, searchPath)).length);
  }
  // A library needs, all told, more libraries than any one that it needs.
  const libraries = needed.map(({ name }) => name).sort((a, b) => sizes.get(a) - sizes.get(b));
  const icd = {
    file_format_version: "1.0.0",
    ICD: { library_path: "./libvulkan_lvp.so", api_version: "1.3.0" },
  };
  writeFileSync(join(folder, "icd.json"), JSON.stringify(icd));
  writeFileSync(
    join(folder, "driver.json"),
    JSON.stringify({ loader: "libvulkan.so.1", icd: "icd.json", libraries }),
  );
  rmSync(unpacked, { recursive: true });
}

/** The release's own package before the backports, whose dependencies differ more from what is installed; older before doubtful ones. */
export function preferredMesa(recent) {
  const trusted = recent.filter(({ version }) => Number.parseInt(version, 10) < FIRST_DOUBTFUL_MESA);
  const candidates = trusted.length > 0 ? trusted : recent;
  return candidates.find((found) => !found.suite.endsWith("-backports")) ?? candidates[0];
}

/** Every shared library that `library` needs, its needs' needs included. */
async function neededBy(library, searchPath) {
  const lines = (await command("ldd", [library], { env: { LD_LIBRARY_PATH: searchPath } })).split("\n");
  const missing = lines.filter((line) => line.includes("not found"));
  if (missing.length > 0)
    throw new SetupError(`${library} needs libraries that no package brought:\n${missing.join("\n")}`);
  return lines
    .map((line) => line.trim().match(/^(\S+) => (\S+) \(/))
    .filter(Boolean)
    .map(([, name, path]) => ({ name, path }));
}
