import type { Target } from "./session.ts";
import { toast } from "./ui/toasts.tsx";

/** This machine's own names: `npm run explore`, `xpatch serve`, and whoever works on the page. There the newest page is wanted. */
const OWN_HOSTS = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** Whether the browser is to keep the page itself: not that of a server on this machine, nor that of the server which computes. */
function isKept(target: Target): boolean {
  if (OWN_HOSTS.has(location.hostname)) return false;
  const isServers =
    target.kind === "serve" && URL.canParse(target.link) && new URL(target.link).origin === location.origin;
  return !isServers && "serviceWorker" in navigator;
}

/** Has a service worker keep the page for visits to come, once all that this one needs is here. Says when there is a newer page. */
export async function keepPage(target: Target): Promise<void> {
  if (!isKept(target)) return;
  if (document.readyState !== "complete") await new Promise((resolve) => addEventListener("load", resolve));
  const { serviceWorker } = navigator;
  try {
    const registration = await serviceWorker.register("./service-worker.js");
    // Of the first visit there is nothing to be said: no page is replaced.
    if (!serviceWorker.controller) return;
    if (registration.waiting) sayNewer();
    registration.addEventListener("updatefound", () => {
      const { installing } = registration;
      installing?.addEventListener("statechange", () => {
        if (installing.state === "installed") sayNewer();
      });
    });
  } catch {
    // Not allowed here (a private window): the page works as before, from the network.
  }
}

function sayNewer(): void {
  toast(
    "There is a newer version of this page. It is here at the next visit, when all its tabs have been closed.",
  );
}
