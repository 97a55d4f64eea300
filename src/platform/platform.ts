import type { GPUAdapter } from "./global-types.ts";

/**
 * What the library needs from the machine it runs on. `#platform` resolves to node.ts or browser.ts (package.json
 * "imports"); src/parity and src/cli apart, nothing else in src/ may import a Node module.
 */

/** Random access to bytes: a local file, a URL that answers range requests, or memory. */
export interface ByteSource {
  /** What to call it in messages: a path or a URL. */
  readonly name: string;
  /** Total length in bytes. */
  readonly size: number;
  /** Exactly `length` bytes from `offset`. Throws CheckpointError when they are not there. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Says that these bytes are going to be read, after those of earlier calls. Only there where each read is a request, and
   * neighbours are better read together.
   */
  expect?(offset: number, length: number): void;
  /** Frees the file, if it is one. */
  close(): Promise<void>;
}

/** Which driver to take: a real GPU if there is one, else lavapipe, else SwiftShader (`auto`); or one of them by name. */
export type AdapterChoice = "auto" | "gpu" | "lavapipe" | "swiftshader";

export interface AdapterRequest {
  adapter?: AdapterChoice;
  /** Dawn toggles to enable (Node only), for example `vulkan_enable_f16_on_nvidia`. */
  toggles?: readonly string[];
}

/** What {@link Platform.show} shows, in each of the forms that it may need. */
export interface Shown {
  readonly text: string;
  svg(): Promise<string>;
  html(): Promise<string>;
}

export interface Platform {
  readonly name: "node" | "browser";
  /** Throws DeviceError saying what to install when no adapter can be had. */
  requestAdapter(request: AdapterRequest): Promise<GPUAdapter>;
  /** Waits for work of a software driver without taking the cores that it computes on. */
  waitForDriver<T>(promise: Promise<T>): Promise<T>;
  /** Gives back what dropped WebGPU objects hold, where that does not happen in time by itself. */
  collectGarbage(): void;
  /** Bytes of the machine's memory that are free; undefined in a browser, which does not say. */
  freeMemory(): number | undefined;
  /** Opens a file of a local folder. Throws CheckpointError in a browser. */
  openFile(path: string): Promise<ByteSource>;
  /** Names of all that lies in a local folder; undefined when it is none, and in a browser. */
  filesIn(path: string): Promise<string[] | undefined>;
  /** Makes a local folder, and those that it lies in, as far as they are not there. Throws FileError, in a browser always. */
  makeFolder(path: string): Promise<void>;
  /** Writes a local file, whole or not at all, as its chunks come. Throws FileError, in a browser always. */
  writeFile(path: string, content: string | AsyncIterable<Uint8Array>): Promise<unknown>;
  /** The folders in a local folder; undefined when it is none, and in a browser. */
  subfolders(path: string): Promise<string[] | undefined>;
  /** The folder where set-up puts a model of this name, whether it is there or not; undefined in a browser. */
  cachedModel(name: string): string | undefined;
  /** The folder of this package, which models come with; undefined in a browser. */
  packageFolder(): string | undefined;
  /** What relative URLs are relative to: the address of the page; undefined where there is none, as in Node. */
  baseUrl(): string | undefined;
  /** Draws an SVG document as a PNG, `zoom` pixels for each of its own. Throws ImageError where there is nothing to draw with. */
  svgToPng(svg: string, zoom: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Writes a file; in a browser, downloads it. Throws FileError. */
  saveFile(path: string, content: string | Uint8Array<ArrayBuffer>): Promise<unknown>;
  /**
   * A small text that an earlier program left under this name; undefined where there is none, or none can be kept (in a browser,
   * where a page keeps its own).
   */
  readNote(name: string): Promise<string | undefined>;
  /** Leaves a small text for later programs, where that is possible. */
  writeNote(name: string, text: string): Promise<void>;
  /** Displays something to whoever runs the program, or prints it where nothing can be displayed. */
  show(shown: Shown): Promise<void>;
}
