import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeWhole } from "./node-write.ts";
import type { Shown } from "./platform.ts";

/** Deno's kernel for Jupyter. */
interface Notebook {
  readonly display?: (object: unknown, options: { raw: true }) => Promise<void>;
}

/** The notebook that this runs in. Outside of one, Deno throws where it is asked for it. */
function notebook(): Notebook {
  try {
    return (globalThis as { Deno?: { jupyter?: Notebook } }).Deno?.jupyter ?? {};
  } catch {
    return {};
  }
}

/**
 * See `Platform.show`. In a notebook of Deno's kernel it is displayed; elsewhere a page is written, whose path is printed, and
 * opened where there is a screen; where there is none, as over ssh, the text is printed too.
 */
export async function show(shown: Shown): Promise<void> {
  const { display } = notebook();
  if (display) {
    await display({ "image/svg+xml": await shown.svg(), "text/plain": shown.text }, { raw: true });
    return;
  }
  const html = await shown.html();
  let page: string;
  try {
    page = await written(html);
  } catch (error) {
    // A folder that is read-only, or Deno without the permission: the text can be shown all the same.
    console.log(`${shown.text}\n\n(no page: ${(error as Error).message})`);
    return;
  }
  const isOpen = hasScreen() && (await opens(page).catch(() => false));
  console.log(isOpen ? page : `${shown.text}\n\n${page}`);
}

/** The path of a page of its own. */
async function written(html: string): Promise<string> {
  const page = join(await mkdtemp(join(tmpdir(), "xpatch-figure-")), "figure.html");
  await writeWhole(page, html);
  return page;
}

/** Milliseconds in which an opener that finds no browser has ended. */
const PATIENCE = 1000;

/** Whether a browser is opened: where there is none, the opener starts but soon ends with an error. */
async function opens(page: string): Promise<boolean> {
  const { default: open } = await import("open");
  const opener = await open(page);
  if (opener.exitCode !== null) return opener.exitCode === 0;
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(true), PATIENCE);
    opener.once("exit", (code) => {
      clearTimeout(timer);
      resolve(code === 0);
    });
  });
}

function hasScreen(): boolean {
  const { DISPLAY, WAYLAND_DISPLAY, SSH_CONNECTION } = process.env;
  if (process.platform === "linux") return Boolean(DISPLAY || WAYLAND_DISPLAY);
  return SSH_CONNECTION === undefined;
}
