import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cache, root } from "./cache.mjs";
import { command, SetupError, step } from "./command.mjs";
import { installLavapipe } from "./lavapipe.mjs";
import { installSwiftShader } from "./swiftshader.mjs";

const INSTALLERS = { lavapipe: installLavapipe, swiftshader: installSwiftShader };

/**
 * Sees to it that there is an adapter: for "auto" any that works, installing lavapipe or else SwiftShader where there
 * is none; for "lavapipe" and "swiftshader" that driver. Needs the build.
 */
export async function ensureAdapter(choice) {
  const works = await probe(choice).catch((error) => error);
  if (!(works instanceof SetupError)) return works;
  if (choice === "gpu" || process.platform !== "linux") throw works;
  if (choice !== "auto") return install(choice);
  const tried = [];
  for (const name of Object.keys(INSTALLERS)) {
    try {
      return await install(name);
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      tried.push(`${name}: ${error.message}`);
    }
  }
  throw new SetupError(
    `found no GPU driver, and no software driver could be installed.\n${tried.join("\n")}`,
  );
}

/** Installs a driver into the cache folder and tries it. */
async function install(name) {
  return step(
    `${name} (WebGPU without a GPU)`,
    async () => {
      const folder = join(cache, "drivers", name);
      const incoming = `${folder}.incoming-${process.pid}`;
      try {
        rmSync(incoming, { recursive: true, force: true });
        await INSTALLERS[name](incoming);
        rmSync(folder, { recursive: true, force: true });
        renameSync(incoming, folder);
      } finally {
        rmSync(incoming, { recursive: true, force: true });
      }
      try {
        return await probe(name);
      } catch (error) {
        rmSync(folder, { recursive: true, force: true });
        throw error;
      }
    },
    { quiet: true },
  );
}

/**
 * Opens the adapter in a process of its own, where a driver that crashes does no harm; what it is called. Rejects
 * with SetupError when there is none.
 */
async function probe(adapter) {
  const script = `
    import { platform } from "./dist/platform/node.js";
    const { info } = await platform.requestAdapter({ adapter: ${JSON.stringify(adapter)} });
    console.log(info.description || info.device || info.vendor);`;
  const found = await command(process.execPath, ["--input-type=module", "-e", script], { cwd: root });
  return found.trim();
}
