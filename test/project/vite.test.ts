import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, symlinkSync } from "node:fs";
import { extname, join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { build, createServer, preview } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { GoldenFile } from "../../src/parity/golden-file.ts";
import { cacheFolder } from "../../src/platform/node-cache.ts";
import { launchChromium } from "../helpers/browser.ts";
import { expectClose } from "../helpers/compare.ts";
import { FileServers, pathOf, sendRange } from "../helpers/file-server.ts";
import { OutsideProject } from "../helpers/outside-project.ts";

type Library = typeof import("../../src/index.ts");
declare global {
  interface Window {
    xpatch?: Library;
    logitsOfPage?(): Promise<number[]>;
  }
}

/** As `npm create vite` makes it (vanilla-ts), without a config. */
const INDEX_HTML = `<!doctype html>
<html lang="en">
  <head><meta charset="UTF-8" /><title>Vite + TS</title></head>
  <body><div id="app"></div><script type="module" src="/src/main.ts"></script></body>
</html>
`;
const MAIN_TS = `import * as xpatch from "xpatch";
Object.assign(window, { xpatch });
`;

let project: OutsideProject;
let browser: Browser;
beforeAll(async () => {
  project = OutsideProject.create();
  project.write("index.html", INDEX_HTML);
  project.write("src/main.ts", MAIN_TS);
  project.copy("test/fixtures/llama/model", "public/models/plain");
  project.copy("test/fixtures/images", "public/images");
  project.copy("weights/nano", "public/weights/nano");
  browser = await launchChromium();
});
afterAll(async () => {
  await browser?.close();
  project?.remove();
});

async function golden(fixture: string, name: string): Promise<Float32Array> {
  await using file = await GoldenFile.open(`test/fixtures/${fixture}/golden.safetensors`);
  return (await file.read(name)).values as Float32Array;
}

interface Site {
  readonly url: string;
  close(): Promise<unknown>;
}

/** No options but those that keep runs apart and quiet. */
const options = () => ({ root: project.folder, configFile: false, logLevel: "error" }) as const;

const SERVERS: Record<string, () => Promise<Site>> = {
  async dev() {
    const server = await createServer({ ...options(), server: { port: 0, host: "127.0.0.1" } });
    await server.listen();
    return { url: server.resolvedUrls!.local[0]!, close: () => server.close() };
  },
  async preview() {
    // The models are linked into the build, which would copy them.
    await build({ ...options(), build: { copyPublicDir: false } });
    for (const folder of ["models", "weights", "images"]) {
      symlinkSync(join(project.folder, "public", folder), join(project.folder, "dist", folder), "junction");
    }
    const server = await preview({ ...options(), preview: { port: 0, host: "127.0.0.1" } });
    return { url: server.resolvedUrls!.local[0]!, close: () => server.close() };
  },
};

describe.each(Object.keys(SERVERS))("a project as npm create vite makes it, %s", (mode) => {
  let site: Site;
  let page: Page;
  /** Of what is not the application itself. */
  const requests: string[] = [];
  beforeAll(async () => {
    site = await SERVERS[mode]!();
    page = await browser.newPage();
    page.on("request", (request) => {
      if (/\/(models|weights)\//.test(request.url())) requests.push(`${request.method()} ${request.url()}`);
    });
    await page.goto(site.url);
    await page.waitForFunction(() => window.xpatch !== undefined);
  });
  afterAll(async () => {
    await page?.close();
    await site?.close();
  });

  test("loads a plain folder by a path of the server", async () => {
    const { text, generate } = JSON.parse(readFileSync("test/fixtures/llama/case.json", "utf8")).cases[0];
    const ids = await page.evaluate(async (prompt) => {
      const { loadModel, openDevice } = window.xpatch!;
      const device = await openDevice();
      const model = await loadModel("/models/plain", { device });
      const answer = await model.generate(model.prompt(prompt), { maxNewTokens: 5, stopIds: [] });
      await device.destroy();
      return answer.ids;
    }, text);
    expect(ids).toEqual(generate.ids);
  });

  test("loads an assembled model and pictures by relative URLs, with few requests", async () => {
    requests.length = 0;
    const x = await page.evaluate(async () => {
      const { loadImage, loadModel, openDevice, tap } = window.xpatch!;
      const device = await openDevice();
      const model = await loadModel("./weights/nano/vlm", { device });
      for (const format of ["444.jpg", "lossy.webp"]) await loadImage(`images/formats/${format}`);
      const image = await loadImage("images/photo.png");
      const { x } = model.run(model.prompt(["Q:", image, "\nA: red\n\nQ:"]), {
        taps: { x: tap("resid_post.3") },
      });
      const result = [...(await x.read())];
      await device.destroy();
      return result;
    });
    expectClose(x, await golden("nano-vlm", "case0/resid_post.3"), { atol: 1e-4, rtol: 1e-4 });
    expect(requests.length).toBeLessThanOrEqual(40);
    expect(requests.every((request) => request.startsWith("GET "))).toBe(true);
  });

  test("says what a folder that is not there lacks", async () => {
    const messages = await page.evaluate(async () => {
      const { loadModel, openDevice } = window.xpatch!;
      const device = await openDevice();
      const message = (ref: string) => loadModel(ref, { device }).then(String, (error) => String(error));
      const found = [await message("/models/plane"), await message("models/x.safetensors")];
      await device.destroy();
      return found;
    });
    expect(messages[0]).toContain(
      `${site.url}models/plane: there is no config.json (the server sent an HTML page in place of it)`,
    );
    expect(messages[1]).toContain("models/x.safetensors: no such file: the server sent an HTML page");
  });
});

describe("docs/browser.md, built and served as it says", () => {
  const text = readFileSync("docs/browser.md", "utf8");
  /** The files of the page, then those of the page with a worker. */
  const files = [...text.matchAll(/`([\w./]+)`[^`]*:\n\n```ts\n(.*?)^```/gms)].map(([, file, code]) => ({
    file: file!,
    code: code!,
  }));
  /** Of the host of models, and of the page. */
  const headers = [...text.matchAll(/^```http\n(.*?)^```/gms)].map(([, block]) => block!);
  const servers = new FileServers();
  const requests: string[] = [];
  let folder: string;
  let page: Page;
  let pageOrigin: string;
  let modelOrigin: string;

  beforeAll(async () => {
    folder = join(project.folder, "page");
    mkdirSync(folder);
    symlinkSync(join(project.folder, "node_modules"), join(folder, "node_modules"), "junction");
    const [, shell] = /^```sh\n(.*?)^```/ms.exec(text)!;
    execFileSync("sh", ["-ec", shell!.replaceAll("~/.cache/xpatch", cacheFolder())], { cwd: folder });
    renameSync(join(folder, "public"), join(folder, "served")); // a build would copy the 300 MB
    project.write("page/index.html", INDEX_HTML);
    modelOrigin = await serve(["weights"], headers[0]!);
    pageOrigin = await serve([join(folder, "dist"), join(folder, "served")], headers[1]!);
    page = await browser.newPage();
    page.on("request", (request) => void requests.push(new URL(request.url()).pathname));
  });
  afterAll(async () => {
    await page?.close();
    servers.close();
  });

  /** With the addresses of this run in place of those on the page. */
  const localised = (text: string) =>
    text.replaceAll("https://page.example", pageOrigin).replaceAll("https://models.example", modelOrigin);

  function serve(folders: readonly string[], block: string): Promise<string> {
    return servers.start((request, response) => {
      const lines = localised(block).trim().split("\n");
      const headers = Object.fromEntries(lines.map((line) => line.split(/: (.*)/).slice(0, 2)));
      const file = folders
        .map((path) => join(path, pathOf(request) || "index.html"))
        .find((path) => existsSync(path) && statSync(path).isFile());
      if (!file) return void response.writeHead(404, headers).end();
      const type = TYPES[extname(file)] ?? "application/octet-stream";
      sendRange(request, response, readFileSync(file), { ...headers, "content-type": type });
    });
  }

  async function built(program: readonly { file: string; code: string }[]): Promise<void> {
    for (const { file, code } of program) project.write(`page/${file}`, localised(code));
    const config = existsSync(join(folder, "vite.config.ts")) ? {} : { configFile: false as const };
    await build({ root: folder, logLevel: "error", ...config });
  }

  const shown = (answer: RegExp) =>
    page.waitForFunction(
      (pattern) => new RegExp(pattern).test(document.querySelector("#app")!.textContent!),
      answer.source,
      { timeout: 100_000 },
    );

  test("the page names the flag by transformers' numbers, and needs few requests for it", async () => {
    const [{ file, code }] = files as [(typeof files)[number]];
    const more =
      "Object.assign(window, { logitsOfPage: async () => [...(await model.run(prompt).logits!.read())] });\n";
    await built([{ file, code: code + more }]);
    await page.goto(pageOrigin);
    await shown(/^ Greece$/);
    const ofModel = requests.filter((path) => /^\/(models|weights)\//.test(path));
    expect(ofModel.length).toBeGreaterThan(10);
    expect(ofModel.length).toBeLessThanOrEqual(40);
    expect(ofModel.filter((path) => path.includes("adapter_model"))).toHaveLength(4); // two adapters
    // What transformers gets from this picture and prompt; see test/parity/shipped-model.test.ts.
    const logits = await page.evaluate(() => window.logitsOfPage!());
    expectClose(logits, await golden("vlm", "case0/logits_last"), { atol: 1e-3, rtol: 1e-3 });
  });

  test("a worker runs a model of another origin, under the policy", async () => {
    project.copy("test/fixtures/images/formats", "page/served/formats");
    renameSync(join(folder, "served/formats/444.jpg"), join(folder, "served/photo.jpg"));
    await built(files.slice(1));
    await page.goto(pageOrigin);
    await shown(/./);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  });
});

const TYPES: Record<string, string> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};
