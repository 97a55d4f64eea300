import { urlFolder } from "../model/checkpoint/source/folder.ts";
import { type HostOptions, SessionHost } from "./host.ts";
import type { TaskPlace } from "./task-shelf.ts";
import { pagePort } from "./worker-port.ts";

/**
 * Makes the worker in which it is called the host of its page. Call it as the worker's module is run, before anything is waited for.
 *
 * @example
 * // worker.ts
 * serveWorker({ name: "xpatch 0.1.0", tasks: tasksAt(new URL("tasks", import.meta.url).href) });
 * // page.ts
 * const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
 * const session = await SessionClient.open(workerPort(worker));
 */
export function serveWorker(options: Omit<HostOptions, "place">): SessionHost {
  const host = new SessionHost({ ...options, place: "tab" });
  void host.attach(pagePort(globalThis as never));
  return host;
}

/** The tasks that come with xpatch, served in a folder at this URL. */
export function tasksAt(url: string): TaskPlace {
  return { address: url.replace(/\/+$/, ""), folder: urlFolder(url) };
}
