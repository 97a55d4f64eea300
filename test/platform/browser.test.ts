import type { JSHandle } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BrowserPage } from "../helpers/browser.ts";

type Module = typeof import("../../src/platform/browser.ts");

let browser: BrowserPage;
let module: JSHandle<Module>;
beforeAll(async () => {
  browser = await BrowserPage.open();
  module = await browser.import<Module>("/src/platform/browser.ts");
});
afterAll(() => browser?.close());

test("the browser's adapter opens a device that works", async () => {
  const found = await browser.page.evaluate(async ({ platform }) => {
    const adapter = await platform.requestAdapter({});
    const device = await adapter.requestDevice();
    const buffer = device.createBuffer({ size: 4, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
    device.queue.writeBuffer(buffer, 0, new Uint32Array([42]));
    await buffer.mapAsync(GPUMapMode.READ);
    const [value] = new Uint32Array(buffer.getMappedRange());
    return { name: platform.name, value };
  }, module);
  expect(found).toEqual({ name: "browser", value: 42 });
});

test("a browser has no local files", async () => {
  const message = await browser.page.evaluate(
    ({ platform }) =>
      platform.openFile("/etc/hostname").then(String, (error: Error) => `${error.name}: ${error.message}`),
    module,
  );
  expect(message).toMatch(/^CheckpointError: cannot open \/etc\/hostname: .*URL/);
});

test("without WebGPU the error says so", async () => {
  const message = await browser.page.evaluate(({ platform }) => {
    Object.defineProperty(navigator, "gpu", { value: undefined, configurable: true });
    return platform.requestAdapter({}).then(String, (error: Error) => `${error.name}: ${error.message}`);
  }, module);
  expect(message).toMatch(/^DeviceError: .*no WebGPU/);
});
