import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeWhole } from "./node-write.ts";
import type { Shown } from "./platform.ts";

/** Deno's kernel for Jupyter. */
interface Notebook {
  readonly display?: (object: unknown, options: { raw: true }) => Promise<void>;
}

/**
 * See `Platform.show`. In a notebook of Deno's kernel it is displayed; where there is a screen a page is opened; elsewhere, as over
 * ssh, the text is printed with the page's path.
 */
export async function show(shown: Shown): Promise<void> {
  const { display }: Notebook = (globalThis as { Deno?: { jupyter?: Notebook } }).Deno?.jupyter ?? {};
  if (display) {
    await display({ "image/svg+xml": await shown.svg(), "text/plain": shown.text }, { raw: true });
    return;
  }
  const folder = await mkdtemp(join(tmpdir(), "xpatch-figure-"));
  const page = join(folder, "figure.html");
  await writeWhole(page, await shown.html());
  if (hasScreen()) {
    const { default: open } = await import("open");
    // Where no browser can be started the text is there as well.
    const opened = await open(page).then(
      (child) => child.pid !== undefined,
      () => false,
    );
    if (opened) return;
  }
  console.log(`${shown.text}\n\n${page}`);
}

function hasScreen(): boolean {
  const { DISPLAY, WAYLAND_DISPLAY, SSH_CONNECTION } = process.env;
  if (process.platform === "linux") return Boolean(DISPLAY || WAYLAND_DISPLAY);
  return SSH_CONNECTION === undefined;
}
