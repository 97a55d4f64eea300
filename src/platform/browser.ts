import { CheckpointError, DeviceError, FileError } from "../errors.ts";
import { saveFile, show, svgToPng } from "./browser-figures.ts";
import type { AdapterRequest, ByteSource, Platform } from "./platform.ts";
import { isSoftware } from "./software-adapter.ts";

/**
 * The browser's adapter. It cannot be told which driver to take: "gpu" throws where it only has a software driver,
 * the other choices take what there is.
 *
 * @throws DeviceError when the browser has no WebGPU or no adapter.
 */
async function requestAdapter(request: AdapterRequest = {}): Promise<GPUAdapter> {
  if (!globalThis.navigator?.gpu) {
    throw new DeviceError(
      "this browser has no WebGPU, or the page is not a secure context (https or localhost); " +
        "in Chromium on Linux it may need --enable-unsafe-webgpu",
    );
  }
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter)
    throw new DeviceError("this browser has WebGPU but found no adapter; see chrome://gpu for the reason");
  if (request.adapter === "gpu" && isSoftware(adapter.info)) {
    throw new DeviceError(`expected a GPU, found only the software driver "${adapter.info.description}"`);
  }
  return adapter;
}

function openFile(path: string): Promise<ByteSource> {
  return Promise.reject(
    new CheckpointError(`cannot open ${path}: a browser has no local files; pass a URL or bytes`),
  );
}

function noFolders(path: string): Promise<never> {
  return Promise.reject(new FileError(`cannot write ${path}: a browser has no local folders`));
}

/** A worker made from a Blob has an address that nothing is relative to; some runtimes have none at all. */
function baseUrl(): string | undefined {
  if (globalThis.document) return document.baseURI;
  const address: Location | undefined = globalThis.location;
  return address?.protocol === "blob:" ? address.origin : address?.href;
}

/** The platform in a browser, or any runtime that has `navigator.gpu`. */
export const platform: Platform = {
  name: "browser",
  requestAdapter,
  openFile,
  filesIn: async () => undefined,
  makeFolder: noFolders,
  writeFile: noFolders,
  subfolders: async () => undefined,
  cachedModel: () => undefined,
  packageFolder: () => undefined,
  baseUrl,
  waitForDriver: (promise) => promise, // the browser's GPU process does the waiting
  collectGarbage: () => {}, // and counts what it holds
  freeMemory: () => undefined,
  svgToPng,
  saveFile,
  readNote: async () => undefined,
  writeNote: async () => {},
  show,
};
