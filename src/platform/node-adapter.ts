import { create, globals } from "webgpu";
import { DeviceError } from "../errors.ts";
import { nearestHint } from "../nearest.ts";
import { type DriverName, hasSystemDriver, installedDriver, unlistedDriver } from "./node-drivers.ts";
import { inTurn, nativeEnvironment, writesNativeEnvironment } from "./node-environment.ts";
import { preload, withVariables } from "./node-native.ts";
import { packageFolder } from "./node-package.ts";
import { withoutHarmlessRemarks } from "./node-remarks.ts";
import type { AdapterChoice, AdapterRequest } from "./platform.ts";
import { isSoftware } from "./software-adapter.ts";

export const ADAPTER_CHOICES: readonly AdapterChoice[] = ["auto", "gpu", "lavapipe", "swiftshader"];

// Dawn hides f16 on NVIDIA cards unless asked.
const DEFAULT_TOGGLES = ["vulkan_enable_f16_on_nvidia"];

/** What this process holds of Dawn. On globalThis: Dawn crashes when its instance is collected before its devices. */
interface Held {
  instances: Map<string, GPU>;
  devices: Set<GPUDevice>;
}

/**
 * The adapter that `request.adapter` names, else the environment variable XPATCH_ADAPTER, else "auto": a real GPU if
 * Dawn finds one, else lavapipe, else SwiftShader, else whatever software driver the system has.
 *
 * Never downloads anything: software drivers come from the cache folder, where `npm run setup` puts them.
 *
 * In a worker thread, software drivers need the process's environment (`env: SHARE_ENV`).
 *
 * @throws DeviceError when the choice is unknown or the adapter is not to be had, saying what to install or to do.
 */
export function requestAdapter(request: AdapterRequest = {}): Promise<GPUAdapter> {
  return inTurn(() => chosenAdapter(request));
}

/** The choice of `request.adapter`, else of XPATCH_ADAPTER, else "auto". Throws DeviceError for what is none. */
export function adapterChoice(request: AdapterRequest): AdapterChoice {
  const choice = request.adapter ?? (process.env.XPATCH_ADAPTER || "auto");
  const found = ADAPTER_CHOICES.find((name) => name === choice);
  if (found) return found;
  throw new DeviceError(
    `${request.adapter === undefined ? "XPATCH_ADAPTER" : "adapter"}: expected one of ${ADAPTER_CHOICES.join(", ")}, found ` +
      `"${choice}"${nearestHint(choice, ADAPTER_CHOICES)}`,
  );
}

async function chosenAdapter(request: AdapterRequest): Promise<GPUAdapter> {
  const choice = adapterChoice(request);
  const toggles = [...DEFAULT_TOGGLES, ...(request.toggles ?? [])];
  switch (choice) {
    case "lavapipe":
    case "swiftshader": {
      const adapter = await softwareAdapter(choice, toggles);
      if (!adapter) throw missingDriver(choice);
      return adapter;
    }
    case "gpu": {
      const adapter = await systemAdapter(toggles);
      if (adapter && !isSoftware(adapter.info)) return adapter;
      const found = adapter ? `only the software driver "${adapter.info.description}"` : "none";
      throw new DeviceError(`expected a GPU with a Vulkan, Metal or Direct3D 12 driver, found ${found}`);
    }
    case "auto": {
      const system = await systemAdapter(toggles);
      // Whoever sets these variables has chosen a driver already.
      const chosen = process.env.VK_DRIVER_FILES || process.env.VK_ICD_FILENAMES;
      if (system && (chosen || !isSoftware(system.info))) return system;
      const adapter =
        (await softwareAdapter("lavapipe", toggles)) ??
        (await softwareAdapter("swiftshader", toggles)) ??
        system;
      if (!adapter) throw missingDriver("auto");
      return adapter;
    }
  }
}

function missingDriver(choice: DriverName | "auto"): DeviceError {
  const installed =
    choice === "auto"
      ? (installedDriver("lavapipe") ?? installedDriver("swiftshader"))
      : installedDriver(choice);
  if (installed && !writesNativeEnvironment()) {
    return new DeviceError(
      "a worker thread with an environment of its own cannot choose a software driver, because the Vulkan loader sees " +
        "only the process's environment. Share it, new Worker(file, { env: SHARE_ENV }), or start the process with " +
        `VK_DRIVER_FILES=${installed.icd}`,
    );
  }
  const wanted = choice === "auto" ? "WebGPU adapter" : `${choice} driver that works`;
  return new DeviceError(
    `no ${wanted} on this machine. "npm run setup${choice === "auto" ? "" : ` -- ${choice}`}" in ${packageFolder()} ` +
      "installs a software driver without root; for a GPU, install its vendor's Vulkan driver and the Vulkan loader " +
      "(Debian, Ubuntu: libvulkan1)",
  );
}

/** What the system's own drivers offer. */
async function systemAdapter(toggles: readonly string[]): Promise<GPUAdapter | null> {
  if (process.platform !== "linux") return adapterOf(instance("system", toggles));
  // Dawn and the loader complain on stderr when there is nothing to find, so look first.
  if (!hasSystemDriver()) return null;
  if (preload("libvulkan.so.1")) {
    // No loader on the system: one that came with a software driver finds the system's drivers as well.
    const driver = installedDriver("lavapipe") ?? installedDriver("swiftshader");
    if (!driver || preload(driver.loader)) return null;
  }
  return adapterOf(instance("system", toggles), unlistedDriver());
}

/** The adapter of a driver in the cache folder; null where it is not installed or does not work. */
async function softwareAdapter(name: DriverName, toggles: readonly string[]): Promise<GPUAdapter | null> {
  const adapter = await adapterOfDriver(name, toggles);
  if (adapter) drivers.set(adapter, name);
  return adapter;
}

const drivers = new WeakMap<GPUAdapter, DriverName>();

/** The driver of the cache folder that an adapter of {@link requestAdapter} is of; undefined for those of the system. */
export function driverOf(adapter: GPUAdapter): DriverName | undefined {
  return drivers.get(adapter);
}

async function adapterOfDriver(name: DriverName, toggles: readonly string[]): Promise<GPUAdapter | null> {
  const driver = installedDriver(name);
  if (!driver) return null;
  if (preload("libvulkan.so.1")) preload(driver.loader);
  for (const library of driver.libraries) preload(library);
  if (!writesNativeEnvironment()) {
    const { VK_DRIVER_FILES, VK_ICD_FILENAMES } = nativeEnvironment();
    if ((VK_DRIVER_FILES || VK_ICD_FILENAMES) !== driver.icd) return null;
    return adapterOf(instance(driver.icd, toggles), {}, { ours: true });
  }
  // The older of the two names is for loaders before 1.3.207.
  const only = { VK_DRIVER_FILES: driver.icd, VK_ICD_FILENAMES: driver.icd };
  return adapterOf(instance(driver.icd, toggles), only, { ours: true });
}

/** One Dawn instance per driver and set of toggles; a toggle with a minus sign is disabled. */
function instance(driver: string, toggles: readonly string[]): GPU {
  const enabled = toggles.filter((toggle) => !toggle.startsWith("-"));
  const disabled = toggles.filter((toggle) => toggle.startsWith("-")).map((toggle) => toggle.slice(1));
  const options = [
    `enable-dawn-features=${enabled.filter((toggle) => !disabled.includes(toggle)).join(",")}`,
  ];
  if (disabled.length > 0) options.push(`disable-dawn-features=${disabled.join(",")}`);

  const { instances } = held();
  const key = [driver, ...options].join(" ");
  let gpu = instances.get(key);
  if (!gpu) {
    gpu = create(options);
    instances.set(key, gpu);
  }
  return gpu;
}

/**
 * The adapter of an instance, which the Vulkan loader looks for with these environment variables set.
 *
 * @param ours whether it is a software driver of the cache folder, whose remarks are known
 */
async function adapterOf(
  gpu: GPU,
  variables: Record<string, string> = {},
  { ours = false }: { ours?: boolean } = {},
): Promise<GPUAdapter | null> {
  // Dawn looks before this returns its promise, so other instances and child processes never see the variables.
  const ask = () => gpu.requestAdapter({ powerPreference: "high-performance" });
  const adapter = await withVariables(variables, () => (ours ? withoutHarmlessRemarks(ask) : ask()));
  if (!adapter) return null;
  const requestDevice = adapter.requestDevice.bind(adapter);
  adapter.requestDevice = async (descriptor) => {
    const device = await requestDevice(descriptor);
    const { devices } = held();
    devices.add(device);
    device.lost.then(() => devices.delete(device));
    return device;
  };
  return adapter;
}

function held(): Held {
  const holder = globalThis as { [key: symbol]: Held | undefined };
  const key = Symbol.for("xpatch.dawn");
  let state = holder[key];
  if (!state) {
    state = { instances: new Map(), devices: new Set() };
    holder[key] = state;
    for (const [name, value] of Object.entries(globals)) {
      if (!(name in globalThis))
        Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
    }
    const { devices } = state;
    // SwiftShader crashes when the process ends with work in flight; destroying a device waits for its work.
    process.once("exit", () => {
      for (const device of devices) device.destroy();
    });
  }
  return state;
}
