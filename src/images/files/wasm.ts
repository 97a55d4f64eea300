import { platform } from "#platform";
import { ImageError } from "../../errors.ts";
import { filePath } from "./file-url.ts";

/** The parts of an Emscripten module factory that are in use here. */
type ModuleFactory<Codec> = (options: {
  noInitialRun: boolean;
  printErr: (line: string) => void;
  instantiateWasm?: (
    imports: WebAssembly.Imports,
    done: (instance: WebAssembly.Instance) => void,
  ) => WebAssembly.Exports;
}) => Promise<Codec>;

export interface Decoded {
  readonly picture: ImageData;
  /** What the codec wrote to standard error: its warnings. */
  readonly warnings: readonly string[];
}

const compiled = new Map<string, Promise<WebAssembly.Module>>();

/**
 * Runs one decoder of the jSquash packages. Each call gets an instance of its own, so that the memory of a large picture
 * is given back and a crash leaves nothing behind. `wasmFile` is the module's specifier inside its package.
 *
 * Throws ImageError, led by `format`, when the codec refuses the data.
 */
export async function runCodec<Codec>(
  format: string,
  factory: ModuleFactory<Codec>,
  wasmFile: string,
  decode: (codec: Codec) => ImageData | null,
): Promise<Decoded> {
  const module = await compiledWasm(wasmFile);
  const messages: string[] = [];
  const codec = await factory({
    noInitialRun: true,
    printErr: (line) => messages.push(line),
    instantiateWasm:
      module &&
      ((imports, done) => {
        const instance = new WebAssembly.Instance(module, imports);
        done(instance);
        return instance.exports;
      }),
  });
  let picture: ImageData | null;
  try {
    picture = decode(codec);
  } catch (cause) {
    throw new ImageError(`${format}: does not decode: ${messages[0] ?? "the decoder failed"}`, { cause });
  }
  if (!picture) throw new ImageError(`${format}: does not decode: ${messages[0] ?? "damaged or truncated"}`);
  return { picture, warnings: messages };
}

/** Undefined in a browser, where the codec fetches the file that lies beside its script; `fetch` reads no files in Node. */
function compiledWasm(wasmFile: string): Promise<WebAssembly.Module> | undefined {
  if (platform.name === "browser") return undefined;
  let module = compiled.get(wasmFile);
  if (!module) {
    module = readPackageFile(wasmFile).then((bytes) => WebAssembly.compile(bytes));
    compiled.set(wasmFile, module);
  }
  return module;
}

async function readPackageFile(specifier: string): Promise<Uint8Array<ArrayBuffer>> {
  const file = await platform.openFile(filePath(import.meta.resolve(specifier)));
  try {
    return await file.read(0, file.size);
  } finally {
    await file.close();
  }
}
