/*
 * The worker that keeps the page itself, so that it opens without its server. One build has one worker: it knows the hashes of all files of
 * the build, keeps all of them or none, and hands out no other's. The next build's worker waits until no tab shows this one.
 */

/** Written in by scripts/build-web.mjs: the build's hash, and the files' in the form of the attribute `integrity`, by relative address. */
declare const __KEPT__: { readonly version: string; readonly files: Readonly<Record<string, string>> };

/** The scope of a service worker, whose types are not those of a page. */
interface Lasting extends Event {
  waitUntil(done: Promise<unknown>): void;
}
interface Fetching extends Event {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}
const scope = globalThis as unknown as {
  readonly registration: { readonly scope: string };
  addEventListener(type: "install" | "activate", listener: (event: Lasting) => void): void;
  addEventListener(type: "fetch", listener: (event: Fetching) => void): void;
};

const { version, files } = __KEPT__;
const root = scope.registration.scope;
/** Caches are the origin's: another copy of the page, in another folder, has its own. */
const own = `xpatch-page ${root} `;
const name = own + version;
const kept = new Map(Object.entries(files).map(([path, hash]) => [new URL(path, root).href, hash]));

scope.addEventListener("install", (event) => event.waitUntil(keepAll()));
scope.addEventListener("activate", (event) => event.waitUntil(forgetOthers()));
scope.addEventListener("fetch", (event) => {
  const address = addressOf(event.request);
  if (event.request.method === "GET" && kept.has(address)) event.respondWith(answer(event.request, address));
});

async function keepAll(): Promise<void> {
  const cache = await caches.open(name);
  const keep = async ([address, integrity]: [string, string]) => {
    // Another file than that of this build, and what is no file of ours (a page to sign in), is refused.
    const response = await fetch(address, { integrity, cache: "no-cache", redirect: "error" });
    if (!response.ok) throw new Error(`${address}: the server answered ${response.status}`);
    await cache.put(address, response);
  };
  try {
    await Promise.all([...kept].map(keep));
  } catch (error) {
    await caches.delete(name);
    throw error;
  }
}

async function forgetOthers(): Promise<void> {
  for (const each of await caches.keys())
    if (each.startsWith(own) && each !== name) await caches.delete(each);
}

/** What is asked for, as it is kept: the page by the address of its folder. */
function addressOf({ url, mode }: Request): string {
  const address = new URL(url);
  address.hash = "";
  if (mode !== "navigate") return address.href;
  address.search = "";
  return address.href === new URL("index.html", root).href ? root : address.href;
}

/** What the browser has cleared away comes from the network. */
async function answer(request: Request, address: string): Promise<Response> {
  const cache = await caches.open(name);
  return (await cache.match(address, { ignoreVary: true })) ?? fetch(request);
}
