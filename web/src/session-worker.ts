import { SessionError } from "../../src/errors.ts";
import type { Folder } from "../../src/model/checkpoint/source/folder.ts";
import { SessionHost } from "../../src/session/host.ts";
import { pagePort } from "../../src/session/ports/worker-port.ts";
import type { TabMessage } from "./tab.ts";
import { unpackFolder } from "./task-folder.ts";

/* The worker that has the device: the host of the page's session. */

const scope = globalThis as unknown as Worker;
const tell = (message: TabMessage) => scope.postMessage(message);

/** Asked of the page with the first task that is used. */
let tasks: Promise<Folder> | undefined;
const folder: Folder = {
  name: "tasks",
  async open(path) {
    tasks ??= askForTasks();
    tasks.catch(() => {
      tasks = undefined;
    });
    return (await tasks).open(path);
  },
};

function askForTasks(): Promise<Folder> {
  return new Promise((resolve, reject) => {
    const listen = ({ data }: MessageEvent<TabMessage>) => {
      if (data.tab !== "tasks") return;
      scope.removeEventListener("message", listen);
      if ("file" in data) resolve(unpackFolder(data.file, "tasks"));
      else reject(new SessionError("problem" in data ? data.problem : "no tasks", { code: "refused" }));
    };
    scope.addEventListener("message", listen);
    tell({ tab: "tasks" });
  });
}

const host = new SessionHost({ name: "xpatch", place: "tab", tasks: { address: "tasks", folder } });
void host.attach(pagePort(scope));
// Where there is no device, the page's own first request is told so.
host.device().then(
  async (device) => tell({ tab: "lost", reason: (await device.gpu.lost).message }),
  () => {},
);
