import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cache, root } from "./cache.mjs";
import { driverKey, remember, remembered, testDriver } from "./check-driver.mjs";
import { command, SetupError, step } from "./command.mjs";
import { installLavapipe } from "./lavapipe.mjs";
import { installSwiftShader } from "./swiftshader.mjs";

/** In the order in which they are tried. SwiftShader's version is pinned, and known to be good. */
const INSTALLERS = { lavapipe: installLavapipe, swiftshader: installSwiftShader };

/**
 * Sees to it that there is an adapter: for "auto" any that works, installing lavapipe or else SwiftShader where there
 * is none; for "lavapipe" and "swiftshader" that driver. A software driver has to pass the self-test (once; the outcome is
 * remembered); one that does not is set aside, and the next one is taken. Returns the adapter's name and why it is this one. Needs the
 * build. `tests` and `installers` are put in place of the real ones by tests.
 */
export async function ensureAdapter(choice, { tests = {}, installers = INSTALLERS } = {}) {
  // Drivers that are there and not to be used; and what was tried in vain.
  const rejected = [];
  const tried = [];
  const found = await checked(choice, { rejected, tried }, tests);
  if (found) return found;
  const canInstall = process.platform === "linux" && (choice === "auto" || choice in installers);
  if (!canInstall) throw new SetupError(tried.join("\n"));
  if (choice in installers) return install(choice, installers, tests);
  for (const name of Object.keys(installers)) {
    try {
      await install(name, installers, tests);
      // Not necessarily this driver: with its Vulkan loader a GPU may have come within reach.
      const chosen = await checked("auto", { rejected, tried }, tests);
      if (chosen) return chosen;
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      tried.push(`${name}: ${error.message}`);
      rejected.push(`${name}: ${error.message.split("\n")[0]}`);
    }
  }
  throw new SetupError(
    "found no GPU driver, and no software driver could be installed. Connect to the network, or install a Vulkan " +
      `driver (Debian, Ubuntu: mesa-vulkan-drivers, Mesa 23 or later, and libvulkan1).\n${tried.join("\n")}`,
  );
}

/**
 * The adapter that a choice leads to, if it is a GPU or a software driver that passes. Those of the cache that do not pass are set
 * aside, so that the next one of the choice comes up, and `rejected` says why.
 */
async function checked(choice, { rejected, tried }, tests) {
  for (;;) {
    let adapter;
    try {
      adapter = await probe(choice);
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      tried.push(error.message);
      return undefined;
    }
    const why = rejected.map((reason) => `; not ${reason}`).join("");
    if (!adapter.software) return `${adapter.name}, a GPU${why}`;
    const outcome = await outcomeOf(adapter, folderOf(adapter.driver), {
      ...tests,
      choice: adapter.driver ?? choice,
    });
    if (outcome.verdict === "right") {
      const reason = choice === "auto" ? ", since there is no GPU" : "";
      return `${adapter.name}, a software driver${reason} (${outcome.kernels} kernels of the self-test are right)${why}`;
    }
    const reason = `${adapter.driver ?? "the system's driver"} (${adapter.name}), which ${describe(outcome)}`;
    process.stderr.write(`xpatch set-up: not using ${reason}\n`);
    rejected.push(reason);
    tried.push(`not using ${reason}`);
    // The library takes what is in the cache first; a driver of the system that fails has to be covered by one there.
    if (!adapter.driver) return undefined;
    setAside(adapter.driver);
  }
}

function describe({ verdict, reason }) {
  const words = {
    wrong: "computes wrong numbers in the self-test",
    crashed: "crashes in the self-test",
    hung: "hangs in the self-test",
  };
  return `${words[verdict]}: ${reason}`;
}

/** Of the self-test: as remembered, or by running it. */
async function outcomeOf({ name }, folder, { choice, cacheFolder, ...tests }) {
  const key = driverKey(folder, name, tests);
  const known = remembered(key);
  if (known) return known;
  const run = () => testDriver(choice, { ...tests, ...(cacheFolder && { cacheFolder }) });
  const outcome = await step(`self-test of ${name}`, run);
  remember(key, outcome);
  return outcome;
}

function folderOf(driver) {
  return driver && join(cache, "drivers", driver);
}

function setAside(name) {
  const folder = folderOf(name);
  try {
    rmSync(`${folder}.rejected`, { recursive: true, force: true });
    renameSync(folder, `${folder}.rejected`);
  } catch (error) {
    throw new SetupError(`cannot set aside ${folder}, whose driver is not to be used: ${error.message}`);
  }
}

/** Installs a driver into the cache folder, if it passes the self-test. One that is there stays until then. */
function install(name, installers, tests) {
  return step(`${name} (WebGPU without a GPU)`, async (progress) => {
    const elsewhere = join(cache, `incoming-${process.pid}`);
    const incoming = join(elsewhere, "drivers", name);
    try {
      mkdirSync(join(elsewhere, "drivers"), { recursive: true });
      await installers[name](incoming, progress);
      const adapter = await probe(name, elsewhere);
      const outcome = await outcomeOf(adapter, incoming, { ...tests, choice: name, cacheFolder: elsewhere });
      if (outcome.verdict !== "right") throw new SetupError(`${adapter.name} ${describe(outcome)}`);
      const folder = folderOf(name);
      mkdirSync(join(cache, "drivers"), { recursive: true });
      rmSync(folder, { recursive: true, force: true });
      renameSync(incoming, folder);
      return `${adapter.name}, a software driver (${outcome.kernels} kernels of the self-test are right)`;
    } finally {
      if (existsSync(elsewhere)) rmSync(elsewhere, { recursive: true });
    }
  });
}

/**
 * Opens the adapter in a process of its own, where a driver that crashes does no harm; what it is called, whether it is a software
 * driver, and which one of the cache. Rejects with SetupError when there is none.
 */
async function probe(adapter, cacheFolder = cache) {
  const script = `
    import { driverOf } from "./dist/platform/node-adapter.js";
    import { platform } from "./dist/platform/node.js";
    import { isSoftware } from "./dist/platform/software-adapter.js";
    try {
      const adapter = await platform.requestAdapter({ adapter: ${JSON.stringify(adapter)} });
      const { info } = adapter;
      const name = info.description || info.device || info.vendor;
      console.log(JSON.stringify({ name, software: isSoftware(info), driver: driverOf(adapter) }));
    } catch (error) {
      console.error(error.name === "DeviceError" ? error.message : error);
      process.exitCode = 1;
    }`;
  try {
    const args = ["--input-type=module", "-e", script];
    const stdout = await command(process.execPath, args, { cwd: root, env: { XPATCH_CACHE: cacheFolder } });
    return JSON.parse(stdout.trim().split("\n").at(-1));
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    throw new SetupError(error.tail || `looking for the adapter "${adapter}" ended without a message`);
  }
}
