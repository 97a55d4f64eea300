import { freemem } from "node:os";
import { requestAdapter } from "./node-adapter.ts";
import { cachedModel } from "./node-cache.ts";
import { filesIn, makeFolder, openFile, subfolders } from "./node-file.ts";
import { collectGarbage } from "./node-garbage.ts";
import { readNote, writeNote } from "./node-notes.ts";
import { packageFolder } from "./node-package.ts";
import { show } from "./node-show.ts";
import { svgToPng } from "./node-svg.ts";
import { waitForDriver } from "./node-wait.ts";
import { writeWhole } from "./node-write.ts";
import type { Platform } from "./platform.ts";

/** The platform in Node. */
export const platform: Platform = {
  name: "node",
  requestAdapter,
  openFile,
  filesIn,
  makeFolder,
  writeFile: writeWhole,
  subfolders,
  cachedModel,
  packageFolder,
  baseUrl: () => undefined,
  waitForDriver,
  collectGarbage,
  freeMemory: freemem,
  svgToPng,
  saveFile: writeWhole,
  readNote,
  writeNote,
  show,
};
