import { requestAdapter } from "./node-adapter.ts";
import { cachedModel } from "./node-cache.ts";
import { openFile, subfolders } from "./node-file.ts";
import { collectGarbage } from "./node-garbage.ts";
import { waitForDriver } from "./node-wait.ts";
import type { Platform } from "./platform.ts";

/** The platform in Node. */
export const platform: Platform = {
  name: "node",
  requestAdapter,
  openFile,
  subfolders,
  cachedModel,
  baseUrl: () => undefined,
  waitForDriver,
  collectGarbage,
};
