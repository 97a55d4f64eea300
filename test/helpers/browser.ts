import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, chromium, type JSHandle, type Page } from "playwright-core";
import { createViteServer } from "vitest/node";
import { cacheFolder } from "../../src/platform/node-cache.ts";

type Server = Awaited<ReturnType<typeof createViteServer>>;

/** Headless Chromium with WebGPU. */
export function launchChromium(): Promise<Browser> {
  const executablePath = process.env.XPATCH_CHROMIUM || join(cacheFolder(), "chromium", "chromium");
  if (!existsSync(executablePath)) {
    throw new Error(
      `the browser tests need Chromium, expected at ${executablePath}: "npm run setup -- chromium" installs it`,
    );
  }
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--enable-unsafe-webgpu"] });
}

/** A page of headless Chromium with WebGPU, which can import this checkout's sources, as `/src/index.ts` and so on. */
export class BrowserPage {
  readonly page: Page;
  readonly #browser: Browser;
  readonly #server: Server;

  constructor(page: Page, browser: Browser, server: Server) {
    this.page = page;
    this.#browser = browser;
    this.#server = server;
  }

  static async open(): Promise<BrowserPage> {
    const server = await createViteServer({
      configFile: false,
      root: fileURLToPath(new URL("../..", import.meta.url)),
      appType: "custom",
      logLevel: "error",
      // A port of its own per run, and no watching: nothing here reloads.
      server: { port: 0, host: "127.0.0.1", hmr: false, watch: null },
      // So that what it imports, Vega with the first figure, is known beforehand: what is found out later reloads the page.
      optimizeDeps: { entries: ["src/index.ts"] },
      resolve: { conditions: ["xpatch-source", "browser", "module", "import", "default"] },
    });
    server.middlewares.use("/blank", (_request, response) => {
      response.setHeader("content-type", "text/html").end("<!doctype html><title>xpatch</title>");
    });
    await server.listen();
    const browser = await launchChromium();
    const page = await browser.newPage();
    await page.goto(`${server.resolvedUrls!.local[0]}blank`);
    return new BrowserPage(page, browser, server);
  }

  /** A module of the checkout, for `page.evaluate((module) => …, module)`: vitest rewrites an `import()` in there. */
  import<Module>(path: string): Promise<JSHandle<Module>> {
    return this.page.evaluateHandle(`import(${JSON.stringify(path)})`) as Promise<JSHandle<Module>>;
  }

  async close(): Promise<void> {
    await this.#browser.close();
    await this.#server.close();
  }
}
