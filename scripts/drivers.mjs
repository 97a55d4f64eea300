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
  if (process.platform !== "linux") throw works;
  if (choice in INSTALLERS) return install(choice);
  if (choice !== "auto") throw works;
  const tried = [];
  for (const name of Object.keys(INSTALLERS)) {
    try {
      await install(name);
      // Not necessarily this driver: with its Vulkan loader a GPU may have come within reach.
      return await probe("auto");
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      tried.push(`${name}: ${error.message}`);
    }
  }
  throw new SetupError(
    "found no GPU driver, and no software driver could be installed. Connect to the network, or install a Vulkan " +
      `driver (Debian, Ubuntu: mesa-vulkan-drivers, Mesa 23 or later, and libvulkan1).\n${tried.join("\n")}`,
  );
}

/** Installs a driver into the cache folder and tries it. */
function install(name) {
  return step(`${name} (WebGPU without a GPU)`, async (progress) => {
    const folder = join(cache, "drivers", name);
    const incoming = `${folder}.incoming-${process.pid}`;
    try {
      rmSync(incoming, { recursive: true, force: true });
      await INSTALLERS[name](incoming, progress);
      rmSync(folder, { recursive: true, force: true });
      renameSync(incoming, folder);
    } finally {
      rmSync(incoming, { recursive: true, force: true });
    }
    return probe(name).catch((error) => {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    });
  });
}

/**
 * Opens the adapter in a process of its own, where a driver that crashes does no harm; what it is called. Rejects
 * with SetupError when there is none.
 */
async function probe(adapter) {
  const script = `
    import { platform } from "./dist/platform/node.js";
    try {
      const { info } = await platform.requestAdapter({ adapter: ${JSON.stringify(adapter)} });
      console.log(info.description || info.device || info.vendor);
    } catch (error) {
      console.error(error.name === "DeviceError" ? error.message : error);
      process.exitCode = 1;
    }`;
  try {
    return (await command(process.execPath, ["--input-type=module", "-e", script], { cwd: root })).trim();
  } catch (error) {
    throw new SetupError(error.tail || `looking for the adapter "${adapter}" ended without a message`);
  }
}
