import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { extname, resolve } from "node:path";
// @ts-expect-error: plain JavaScript
import { filesOfPage, SERVICE_WORKER, withKept, withOffered } from "../../../scripts/build-web.mjs";
// @ts-expect-error: plain JavaScript
import { packTasks } from "../../../scripts/pack-tasks.mjs";
import type { KnownFile, Offered } from "../../../web/src/models/manifest.ts";
import { FileServers, pathOf, sendRange } from "../../helpers/file-server.ts";
import { ROOT } from "../../helpers/rooms.ts";
import { builtPage, readBuilt } from "./built-page.ts";

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** Below the root, as on a page of a project: nothing may be asked of the server's root. */
const FOLDER = "some/where/";

export interface SiteOptions {
  /** Folders with models (relative to the checkout), by the ids that they are offered under. Default {@link TINY}. */
  readonly models?: Readonly<Record<string, string>>;
  /** With the tasks that come with xpatch, and their pictures. Default true. */
  readonly tasks?: boolean;
}

/** Answers a request in place of the site, and says so by true. */
export type Intercept = (path: string, request: IncomingMessage, response: ServerResponse) => boolean;

/** A model with goldens that loads in no time: 3 layers of width 48, pictures of 4 × 4 patches. */
export const TINY = { tiny: "test/fixtures/llava/model" };

/** The explorer as `npm run build:web` makes it, with other models beside it, on a server of this process. */
export class ExplorerSite {
  /** Of the page. */
  readonly url: string;
  /** The same by a name that is not this machine's own, as of a static host: the browser keeps that page. */
  readonly hosted: string;
  /** Paths that were asked for, in order. */
  readonly asked: string[] = [];
  /** To fail, to delay, to send something else. */
  intercept: Intercept | undefined;
  readonly #servers: FileServers;
  readonly #files: Map<string, Buffer>;
  readonly #page: string;

  private constructor(origin: string, servers: FileServers, files: Map<string, Buffer>, page: string) {
    this.url = `${origin}/${FOLDER}`;
    this.hosted = this.url.replace("127.0.0.1", "explorer.localhost");
    this.#servers = servers;
    this.#files = files;
    this.#page = page;
  }

  static async start({ models = TINY, tasks = true }: SiteOptions = {}): Promise<ExplorerSite> {
    const page = await builtPage();
    const files = new Map<string, Buffer>();
    const add = (path: string, url: string, bytes: Buffer): KnownFile => {
      files.set(url, bytes);
      const hash = createHash("sha256").update(bytes).digest("hex");
      return { path, bytes: bytes.length, algorithm: "sha256", hash, url };
    };
    const offered: Offered = {
      models: Object.entries(models).map(([id, folder]) => ({
        id,
        title: id,
        words: "A model of the tests.",
        files: readdirSync(resolve(ROOT, folder)).map((name) =>
          add(name, `models/${id}/${name}`, readFileSync(resolve(ROOT, folder, name))),
        ),
      })),
      ...(tasks && {
        tasks: { title: "tasks", files: [add("tasks.bin", "models/tasks.bin", packTasks())] },
      }),
    };
    const index = readFileSync(resolve(page, "index.html"), "utf8");
    const servers = new FileServers();
    let site: ExplorerSite | undefined;
    const origin = await servers.start((request, response) => site!.#answer(request, response));
    site = new ExplorerSite(origin, servers, files, page);
    site.publish(withOffered(index, offered));
    return site;
  }

  /** Puts another page in place of the one that there is, with its service worker. */
  publish(html: string): void {
    this.#files.set("", Buffer.from(html));
    const bytesOf = (path: string) => (path === "./" ? this.#files.get("")! : readBuilt(this.#page, path)!);
    const kept = new Map(filesOfPage(this.#page).map((path: string) => [path, bytesOf(path)]));
    const worker = readBuilt(this.#page, SERVICE_WORKER)!.toString();
    this.#files.set(SERVICE_WORKER, Buffer.from(withKept(worker, kept)));
  }

  /** The page as it was published last. */
  get html(): string {
    return this.#files.get("")!.toString();
  }

  /** Paths of models' files that were asked for since the last call. */
  takeModelRequests(): string[] {
    return this.asked.splice(0).filter((path) => path.startsWith("models/"));
  }

  /** Bytes of a file that lies beside the page. */
  sizeOf(path: string): number {
    return this.#files.get(path)!.length;
  }

  close(): void {
    this.#servers.close();
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = pathOf(request);
    const inside = path.startsWith(FOLDER) ? path.slice(FOLDER.length) : undefined;
    this.asked.push(inside ?? `/${path}`);
    if (inside !== undefined && this.intercept?.(inside, request, response)) return;
    const file =
      inside === undefined ? undefined : (this.#files.get(inside) ?? readBuilt(this.#page, inside));
    if (!file) return void response.writeHead(404).end("no such file");
    const type = TYPES[extname(inside || "index.html")] ?? "application/octet-stream";
    sendRange(request, response, file, { "content-type": type, "cache-control": "no-cache" });
  }
}
