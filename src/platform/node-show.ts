import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeWhole } from "./node-write.ts";
import type { Shown } from "./platform.ts";

/** Deno's kernel for Jupyter. */
interface Notebook {
  readonly display?: (object: unknown, options: { raw: true }) => Promise<void>;
}

/** Outside a notebook Deno throws where it is asked for one. */
function notebook(): Notebook {
  try {
    return (globalThis as { Deno?: { jupyter?: Notebook } }).Deno?.jupyter ?? {};
  } catch {
    return {};
  }
}

/**
 * See `Platform.show`. In a notebook of Deno's kernel it is displayed; where there is a screen a page is opened; elsewhere, as over
 * ssh, the text is printed with the page's path.
 */
export async function show(shown: Shown): Promise<void> {
  const { display } = notebook();
  if (display) {
    await display({ "image/svg+xml": await shown.svg(), "text/plain": shown.text }, { raw: true });
    return;
  }
  const folder = await mkdtemp(join(tmpdir(), "xpatch-figure-"));
  const page = join(folder, "figure.html");
  await writeWhole(page, await shown.html());
  if (hasScreen() && (await opens(page).catch(() => false))) return;
  console.log(`${shown.text}\n\n${page}`);
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
