import {
  type Device,
  type LoadOptions,
  loadModel as load,
  openDevice as open,
  type PatchableModel,
} from "../../src/index.ts";

// xpatch for programs that run one after the other in a process, where models that come with xpatch are loaded once and stay.

export * from "../../src/index.ts";

let device: Promise<Device> | undefined;
const models = new Map<string, Promise<PatchableModel>>();

export function openDevice(...options: Parameters<typeof open>): Promise<Device> {
  if (options.length > 0) return open(...options);
  device ??= open().then((opened) => kept(opened, "destroy"));
  return device;
}

export async function loadModel(ref: string, options: LoadOptions): Promise<PatchableModel> {
  const shared =
    ref.startsWith("xpatch:") && options.device === (await device) && Object.keys(options).length === 1;
  if (!shared) return load(ref, options);
  const model = models.get(ref) ?? load(ref, options).then((loaded) => kept(loaded, "dispose"));
  models.set(ref, model);
  return model;
}

/** The same, but that it outlives the program that gives it back. */
function kept<T extends object>(value: T, end: keyof T): T {
  return Object.defineProperty(value, end, { value: async () => {} });
}
