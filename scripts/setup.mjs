/**
 * Makes a fresh checkout ready, with nothing but Node and npm at hand: dependencies, build, a WebGPU adapter, and on
 * request the model and a browser. What is there already is left alone. Where xpatch is installed in a project, dependencies
 * and build came along.
 *
 *   npm run setup                     dependencies, build, an adapter
 *   npm run setup -- swiftshader      … that adapter (gpu, lavapipe, swiftshader)
 *   npm run setup -- model chromium   … and these (runtimes: Bun and Deno; redis: for grids with a queue)
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { ensureBuild } from "./build.mjs";
import { root } from "./cache.mjs";
import { ensureChromium } from "./chromium.mjs";
import { runScript, SetupError } from "./command.mjs";
import { ensureDependencies } from "./dependencies.mjs";
import { ensureAdapter } from "./drivers.mjs";
import { ensureSmolLM2 } from "./fetch-smollm2.mjs";
import { ensureRedis } from "./redis.mjs";
import { ensureRuntimes } from "./runtimes.mjs";

const OLDEST_NODE = [20, 11];
const ADAPTERS = ["auto", "gpu", "lavapipe", "swiftshader"];
const EXTRAS = ["model", "chromium", "runtimes", "redis"];

/** Dependencies, build, and an adapter: the one that XPATCH_ADAPTER names, else any. */
export async function setUp(adapter = process.env.XPATCH_ADAPTER || "auto") {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1])) {
    throw new SetupError(`needs Node ${OLDEST_NODE.join(".")} or later; this is ${process.versions.node}`);
  }
  // Only a checkout has it; npm leaves it out of packages.
  if (existsSync(join(root, "package-lock.json"))) {
    await ensureDependencies();
    await ensureBuild();
  }
  return ensureAdapter(adapter);
}

async function main() {
  const wanted = process.argv.slice(2);
  const unknown = wanted.find((word) => ![...ADAPTERS, ...EXTRAS].includes(word));
  if (unknown)
    throw new SetupError(
      `expected ${[...ADAPTERS, ...EXTRAS.slice(0, -1)].join(", ")} or ${EXTRAS.at(-1)}; found "${unknown}"`,
    );
  const adapters = wanted.filter((word) => ADAPTERS.includes(word));
  for (const adapter of adapters.length > 0 ? adapters : [undefined])
    console.log(`adapter: ${await setUp(adapter)}`);
  if (wanted.includes("model")) console.log(`model: ${await ensureSmolLM2()}`);
  if (wanted.includes("chromium")) console.log(`chromium: ${await ensureChromium()}`);
  if (wanted.includes("redis")) console.log(`redis: ${await ensureRedis()}`);
  if (wanted.includes("runtimes")) console.log(`runtimes: ${await ensureRuntimes()}`);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await runScript(main);
