import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Large packages of no use to a browser or a compiler. */
const NATIVE = ["node_modules/webgpu"];

/** What `npm pack` makes of this checkout, unpacked, by whoever needs it first in the run of a Vitest process; `build.ts` removes it. */
export function packedFolder(vitest: number): string {
  return join(tmpdir(), `xpatch-packed-${vitest}`);
}

function packed(): string {
  const folder = packedFolder(process.ppid);
  if (existsSync(folder)) return folder;
  const incoming = mkdtempSync(`${folder}-`);
  const pack = ["pack", "--ignore-scripts", "--silent", "--pack-destination", incoming];
  const tarball = execFileSync("npm", pack, { cwd: ROOT, encoding: "utf8" }).trim();
  execFileSync("tar", ["-xzf", tarball], { cwd: incoming });
  try {
    renameSync(join(incoming, "package"), folder);
  } catch (error) {
    if (!existsSync(folder)) throw error; // else another file was faster
  }
  rmSync(incoming, { recursive: true });
  return folder;
}

/**
 * A project of somebody else's in a temporary folder, with xpatch installed from what `npm pack` makes of this checkout. Of
 * the dependencies only those that package.json lists for users are there, so that a forgotten one shows.
 */
export class OutsideProject {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Needs no network: the dependencies are those of the checkout, with all that they depend on. */
  static create(): OutsideProject {
    const project = new OutsideProject(mkdtempSync(join(tmpdir(), "xpatch-outside-")));
    const { folder } = project;
    cpSync(packed(), join(folder, "node_modules", "xpatch"), { recursive: true });
    project.write("package.json", JSON.stringify({ private: true, type: "module" }));
    const { packages } = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8"));
    for (const [path, { dev }] of Object.entries<{ dev?: boolean }>(packages)) {
      if (path === "" || dev || !existsSync(join(ROOT, path))) continue;
      if (NATIVE.includes(path)) project.link(path.replace("node_modules/", ""));
      else project.copy(path, path);
    }
    return project;
  }

  /** Copies a folder of the checkout into the project, where it can without using room for it. */
  copy(from: string, to: string): void {
    const [source, target] = [join(ROOT, from), join(this.folder, to)];
    mkdirSync(target, { recursive: true });
    for (const entry of readdirSync(source, { withFileTypes: true })) {
      const [file, copy] = [join(source, entry.name), join(target, entry.name)];
      if (entry.isDirectory()) this.copy(join(from, entry.name), join(to, entry.name));
      else if (!existsSync(copy)) linkOrCopy(file, copy);
    }
  }

  /** Puts a package of the checkout into the project. */
  link(name: string): void {
    const path = join(this.folder, "node_modules", name);
    if (existsSync(path)) return;
    mkdirSync(dirname(path), { recursive: true });
    symlinkSync(join(ROOT, "node_modules", name), path, "junction");
  }

  write(path: string, text: string): void {
    const file = join(this.folder, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }
}

/** A link across file systems is not possible. */
function linkOrCopy(file: string, copy: string): void {
  try {
    linkSync(file, copy);
  } catch {
    copyFileSync(file, copy);
  }
}
