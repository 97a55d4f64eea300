/**
 * `npm run explore`: sets everything up, builds the explorer where that is needed, serves it on this machine and opens it in a browser.
 *
 *   npm run explore                     … on a port that is free
 *   npm run explore -- --port 8080      … on this one
 *   npm run explore -- --no-open        … and only prints the address
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ensureWeb } from "./build-web.mjs";
import { root } from "./cache.mjs";
import { runScript, SetupError } from "./command.mjs";
import { ensureSmolLM2 } from "./fetch-smollm2.mjs";
import { setUp } from "./setup.mjs";
import { serveFolder } from "./static-server.mjs";

await runScript(async () => {
  const { port, open } = given();
  if (!existsSync(join(root, "web", "src")))
    throw new SetupError("the explorer is built in a checkout of xpatch, and this is an installed package");
  await setUp();
  await ensureSmolLM2();
  const { server, address } = await serveFolder(await ensureWeb(), port).catch((error) => {
    throw new SetupError(`port ${port}: ${error.message}`);
  });
  // With the shipped model loaded, which is here already.
  const page = `${address}#/?load=xpatch:vlm`;
  console.log(`The explorer: ${page}\nStop it with Ctrl+C.`);
  if (open) await openBrowser(page);
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.once(signal, () => {
      server.close();
      server.closeAllConnections();
    });
  }
});

function given() {
  try {
    const { values } = parseArgs({
      options: { port: { type: "string", default: "0" }, "no-open": { type: "boolean" } },
    });
    const port = Number(values.port);
    if (!Number.isInteger(port) || port < 0 || port > 65535)
      throw new Error(`--port ${values.port} is no port`);
    return { port, open: !values["no-open"] };
  } catch (error) {
    throw new SetupError(`${error.message}; there are --port <number> and --no-open`);
  }
}

/** Where there is no browser to open it, the printed address has to do. */
async function openBrowser(address) {
  const { default: open } = await import("open");
  const child = await open(address).catch(() => undefined);
  child?.on("error", () => {});
}
