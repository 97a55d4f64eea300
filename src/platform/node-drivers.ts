import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { cacheFolder } from "./node-cache.ts";

/** A software driver for machines without a GPU, as `npm run setup` leaves it in the cache folder. */
export interface Driver {
  /** The Vulkan loader (`libvulkan.so.1`). */
  loader: string;
  /** The driver's manifest, for VK_DRIVER_FILES. */
  icd: string;
  /** Shared libraries that this machine lacks, each after those that it needs. */
  libraries: string[];
}

export type DriverName = "lavapipe" | "swiftshader";

/** The driver as installed, its paths made absolute; undefined where set-up has not installed it. */
export function installedDriver(name: DriverName): Driver | undefined {
  const folder = join(cacheFolder(), "drivers", name);
  let text: string;
  try {
    text = readFileSync(join(folder, "driver.json"), "utf8");
  } catch {
    return undefined;
  }
  const { loader, icd, libraries } = JSON.parse(text) as Driver;
  return {
    loader: join(folder, loader),
    icd: join(folder, icd),
    libraries: libraries.map((library) => join(folder, library)),
  };
}

// Hosts that run containers on NVIDIA cards (GKE) mount the driver here, where no loader looks.
const NVIDIA_CONTAINER_ICD = "/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json";

/** Whether the system has any Vulkan driver (GPU or software), going by the places where the loader looks. */
export function hasSystemDriver(env: NodeJS.ProcessEnv = process.env): boolean {
  if (env.VK_DRIVER_FILES || env.VK_ICD_FILENAMES || env.VK_ADD_DRIVER_FILES) return true;
  const data = (env.XDG_DATA_DIRS || "/usr/local/share:/usr/share").split(":");
  const config = (env.XDG_CONFIG_DIRS || "/etc/xdg").split(":");
  const home = [
    env.XDG_CONFIG_HOME || join(homedir(), ".config"),
    env.XDG_DATA_HOME || join(homedir(), ".local", "share"),
  ];
  return (
    [...home, ...config, "/usr/local/etc", "/etc", ...data].some((folder) =>
      manifestsIn(join(folder, "vulkan", "icd.d")),
    ) || existsSync(NVIDIA_CONTAINER_ICD)
  );
}

function manifestsIn(folder: string): boolean {
  try {
    return readdirSync(folder).some((file) => file.endsWith(".json"));
  } catch {
    return false;
  }
}

/** Environment variables that show the loader a driver of the system which it does not find by itself. */
export function unlistedDriver(): Record<string, string> {
  return !process.env.VK_ADD_DRIVER_FILES && existsSync(NVIDIA_CONTAINER_ICD)
    ? { VK_ADD_DRIVER_FILES: NVIDIA_CONTAINER_ICD }
    : {};
}
