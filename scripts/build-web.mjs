/**
 * `npm run build:web`: the explorer as a static site in web/dist, which works from any sub-path of any server: the page, the shipped
 * model in 8 bits as one folder, the tasks with their pictures. The page knows the hashes of their files. `ensureWeb` does nothing where
 * the site was made from these very sources.
 */
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join, relative, sep } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./cache.mjs";
import { runScript, step } from "./command.mjs";
import { ensureSmolLM2 } from "./fetch-smollm2.mjs";
import { ensurePackedModel, filesIn } from "./pack-model.mjs";
import { packTasks } from "./pack-tasks.mjs";
import { setUp } from "./setup.mjs";

const site = join(root, "web", "dist");
const stamp = join(site, ".sources");
export const SERVICE_WORKER = "service-worker.js";
const SOURCES = ["src", "web/src"];
const SETTINGS = [
  "web/index.html",
  "web/vite.config.ts",
  "web/tsconfig.json",
  "package.json",
  "package-lock.json",
];

/** Builds the site if it is not that of these sources. Needs what set-up makes. */
export async function ensureWeb() {
  const model = await ensurePackedModel();
  const tasks = packTasks();
  const sources = hashOfPage(createHash("sha256")).update(tasks).update(model).digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === sources) return site;
  await step("the explorer's page", async () => {
    rmSync(site, { recursive: true, force: true });
    await buildPage(site);
    const page = filesOfPage(site);
    offer(site, { models: [addModel(site, model)], tasks: addTasks(site, tasks) });
    keep(site, page);
    writeFileSync(stamp, sources);
  });
  return site;
}

/** Takes what the page is made of into a hash. */
export function hashOfPage(hash) {
  for (const file of [...SOURCES.flatMap(filesIn), ...SETTINGS, join("scripts", "build-web.mjs")]) {
    hash.update(`${file}\0`).update(readFileSync(join(root, file)));
  }
  return hash;
}

/** The page alone, which offers nothing yet. */
export async function buildPage(folder) {
  const { build } = await import("vite");
  const configFile = join(root, "web", "vite.config.ts");
  await build({ configFile, logLevel: "error", build: { outDir: folder, emptyOutDir: true } });
}

/** Tells a built page what lies beside it. */
function offer(folder, offered) {
  const file = join(folder, "index.html");
  writeFileSync(file, withOffered(readFileSync(file, "utf8"), offered));
}

/** Files of a built page by their addresses, relative to it; its service worker, which keeps them, is none of them. */
export function filesOfPage(folder) {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) =>
      relative(folder, join(entry.parentPath ?? entry.path, entry.name))
        .split(sep)
        .join("/"),
    )
    .filter((path) => path !== SERVICE_WORKER)
    .map((path) => (path === "index.html" ? "./" : path))
    .sort();
}

/** Tells a page's service worker what it keeps. Comes last: it knows the hashes. */
function keep(folder, paths) {
  const read = (path) => readFileSync(join(folder, path === "./" ? "index.html" : path));
  const file = join(folder, SERVICE_WORKER);
  writeFileSync(file, withKept(readFileSync(file, "utf8"), new Map(paths.map((path) => [path, read(path)]))));
}

/** The service worker that keeps these files, bytes by their addresses. */
export function withKept(worker, files) {
  const hashes = Array.from(files, ([path, bytes]) => {
    return [path, `sha256-${createHash("sha256").update(bytes).digest("base64")}`];
  });
  const version = createHash("sha256").update(JSON.stringify(hashes)).digest("hex").slice(0, 16);
  const kept = JSON.stringify({ version, files: Object.fromEntries(hashes) });
  if (worker.split("__KEPT__").length !== 2) throw new Error("the service worker has no place for its files");
  return worker.replace("__KEPT__", () => kept);
}

/** The page that offers these models and tasks. */
export function withOffered(html, offered) {
  const place = /(<script type="application\/json" id="offered">)[^<]*(<\/script>)/;
  const json = JSON.stringify(offered).replaceAll("<", "\\u003c");
  return html.replace(place, (_, begin, end) => `${begin}${json}${end}`);
}

function addModel(folder, model) {
  return {
    id: "xpatch:vlm",
    title: "xpatch:vlm",
    words:
      "The model that ships with xpatch: a small LLaVA over SmolLM2-135M that names flags, animals and foods, in 8 bits.",
    files: addFiles(folder, "models/vlm-int8", model),
  };
}

/** Puts the files of a folder beside the page; gives what the page has to know of them. The largest comes last. */
function addFiles(folder, path, from) {
  mkdirSync(join(folder, path), { recursive: true });
  const files = readdirSync(from).map((name) => {
    const source = join(from, name);
    const target = join(folder, path, name);
    rmSync(target, { force: true });
    try {
      linkSync(source, target); // of the cache, which may be on another disk
    } catch {
      copyFileSync(source, target);
    }
    return known(name, `${path}/${name}`, readFileSync(target));
  });
  return files.sort((a, b) => a.bytes - b.bytes);
}

function addTasks(folder, bytes) {
  mkdirSync(join(folder, "models"), { recursive: true });
  writeFileSync(join(folder, "models", "tasks.bin"), bytes);
  return { title: "tasks and their pictures", files: [known("tasks.bin", "models/tasks.bin", bytes)] };
}

function known(path, url, bytes) {
  const hash = createHash("sha256").update(bytes).digest("hex");
  return { path, bytes: bytes.length, algorithm: "sha256", hash, url };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runScript(async () => {
    await setUp();
    await ensureSmolLM2();
    console.log(`the explorer: ${await ensureWeb()}`);
  });
}
