import type { ClientPort } from "../../src/session/messages/protocol.ts";
import { workerPort } from "../../src/session/ports/worker-port.ts";
import { offered } from "./offered.ts";
import { taskFile } from "./tasks.ts";

/** What the page and its worker tell each other besides the messages of the session. */
export type TabMessage =
  /** The worker's device is gone. */
  | { readonly tab: "lost"; readonly reason: string }
  /** The worker needs the tasks; the page sends their file, or says why it cannot. */
  | { readonly tab: "tasks" }
  | { readonly tab: "tasks"; readonly file: Blob }
  | { readonly tab: "tasks"; readonly problem: string };

/** A session in a worker of this tab. */
export interface Tab {
  readonly port: ClientPort;
  close(): void;
}

/** Starts the worker. `onLost` is called when its device is lost. */
export function connectTab(onLost: (reason: string) => void): Tab {
  const worker = new Worker(new URL("./session-worker.ts", import.meta.url), {
    type: "module",
    name: "session",
  });
  const tell = (message: TabMessage) => worker.postMessage(message);
  worker.addEventListener("message", async ({ data }: MessageEvent<TabMessage>) => {
    if (data.tab === "lost") return onLost(data.reason);
    if (data.tab !== "tasks") return;
    try {
      if (!offered.tasks) throw new Error("this site has no tasks");
      tell({ tab: "tasks", file: await taskFile(offered.tasks) });
    } catch (error) {
      tell({ tab: "tasks", problem: (error as Error).message });
    }
  });
  const close = () => worker.terminate();
  return { port: workerPort(worker), close };
}
