import { createRequire } from "node:module";
import { constants } from "node:os";

/** What has to happen in the C library, where Dawn and its Vulkan loader see it. */
interface Native {
  /** Sets an environment variable, or takes it out. */
  setVariable(name: string, value: string | undefined): void;
  /** Loads a shared library for good; why it could not be loaded, or undefined. */
  load(library: string): string | undefined;
  /** C's own; undefined where there is no way to call them. */
  readonly descriptors: Descriptors | undefined;
}

/** File descriptors: `dup` gives a new one for the same file, -1 where it cannot; `dup2` makes `to` one for the file of `from`. */
export interface Descriptors {
  dup(from: number): number;
  dup2(from: number, to: number): number;
  /** Of those of `dup`: Node warns about descriptors that it did not open. */
  close(descriptor: number): number;
}

// glibc's RTLD_NODELETE; node:os does not name it. Without it Node closes again what is not one of its add-ons.
const KEEP_LOADED = 0x1000;
const FLAGS = constants.dlopen.RTLD_LAZY | KEEP_LOADED;

/** `process.env` and `process.dlopen` do the first two. */
function inNode(): Native {
  let descriptors: { readonly found: Descriptors | undefined } | undefined;
  return {
    // Loaded when somebody asks: most drivers need none of it.
    get descriptors() {
      descriptors ??= { found: descriptorsInNode() };
      return descriptors.found;
    },
    setVariable: setInProcess,
    load(library) {
      try {
        process.dlopen({ exports: {} }, library, FLAGS);
      } catch (error) {
        const { message } = error as Error;
        return message.includes("did not self-register") ? undefined : message;
      }
      return undefined;
    },
  };
}

/** By koffi, which is not there on every platform. */
function descriptorsInNode(): Descriptors | undefined {
  try {
    const koffi: typeof import("koffi") = createRequire(import.meta.url)("koffi");
    const libc = koffi.load("libc.so.6");
    return {
      dup: libc.func("int dup(int)"),
      dup2: libc.func("int dup2(int, int)"),
      close: libc.func("int close(int)"),
    };
  } catch {
    return undefined;
  }
}

/** Bun keeps its own environment, and takes libraries only if they are add-ons: both go through its FFI. */
function inBun(): Native {
  const { dlopen } = createRequire(import.meta.url)("bun:ffi") as BunFfi;
  const { symbols } = dlopen("libc.so.6", {
    setenv: { args: ["cstring", "cstring", "i32"], returns: "i32" },
    unsetenv: { args: ["cstring"], returns: "i32" },
    dlopen: { args: ["cstring", "i32"], returns: "ptr" },
    dup: { args: ["i32"], returns: "i32" },
    dup2: { args: ["i32", "i32"], returns: "i32" },
    close: { args: ["i32"], returns: "i32" },
  });
  return {
    descriptors: symbols as unknown as Descriptors,
    setVariable(name, value) {
      if (value === undefined) symbols.unsetenv!(cString(name));
      else symbols.setenv!(cString(name), cString(value), 1);
    },
    load: (library) => (symbols.dlopen!(cString(library), FLAGS) ? undefined : `cannot load ${library}`),
  };
}

/** Deno's environment is the process's; libraries go through its FFI, which needs the permission that Dawn needs too. */
function inDeno(deno: DenoFfi): Native {
  const { symbols } = deno.dlopen("libc.so.6", {
    dlopen: { parameters: ["buffer", "i32"], result: "pointer" },
    dup: { parameters: ["i32"], result: "i32" },
    dup2: { parameters: ["i32", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
  });
  return {
    descriptors: symbols as unknown as Descriptors,
    setVariable: setInProcess,
    load: (library) => (symbols.dlopen!(cString(library), FLAGS) ? undefined : `cannot load ${library}`),
  };
}

function setInProcess(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
}

function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}

interface Symbols {
  readonly symbols: Record<string, (...values: (Uint8Array | number)[]) => unknown>;
}

interface BunFfi {
  dlopen(library: string, symbols: object): Symbols;
}

interface DenoFfi {
  dlopen(library: string, symbols: object): Symbols;
}

const runtime = globalThis as { Deno?: DenoFfi; Bun?: object };

/** Whether this is Bun or Deno, which run Node's modules. */
export const likeNode = runtime.Bun !== undefined || runtime.Deno !== undefined;

let native: Native | undefined;

function library(): Native {
  native ??= runtime.Bun ? inBun() : runtime.Deno ? inDeno(runtime.Deno) : inNode();
  return native;
}

/**
 * Loads a shared library for good, so that later lookups of its bare name find this one; this way Dawn gets a Vulkan
 * loader and a driver gets its dependencies without LD_LIBRARY_PATH, which cannot be changed in a running process.
 * Returns why it could not be loaded, or undefined.
 */
export function preload(path: string): string | undefined {
  return library().load(path);
}

/** Runs `fn` with environment variables that native code sees, and puts back what was there before it returns. */
export function withVariables<T>(variables: Readonly<Record<string, string>>, fn: () => T): T {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const);
  try {
    for (const [name, value] of Object.entries(variables)) library().setVariable(name, value);
    return fn();
  } finally {
    for (const [name, value] of before) library().setVariable(name, value);
  }
}

/** C's `dup` and `dup2`; undefined where there is no way to call them. */
export function nativeDescriptors(): Descriptors | undefined {
  return library().descriptors;
}
