import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
// @ts-expect-error: plain JavaScript
import { ensureBuild } from "../../scripts/build.mjs";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/**
 * A project of somebody else's in a temporary folder, with xpatch installed from what `npm pack` makes of this checkout. Of
 * the dependencies only those that package.json lists for users are there, so that a forgotten one shows.
 */
export class OutsideProject {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async create(): Promise<OutsideProject> {
    await ensureBuild();
    const project = new OutsideProject(mkdtempSync(join(tmpdir(), "xpatch-outside-")));
    const { folder } = project;
    const pack = ["pack", "--ignore-scripts", "--silent", "--pack-destination", folder];
    const tarball = execFileSync("npm", pack, { cwd: ROOT, encoding: "utf8" }).trim();
    execFileSync("tar", ["-xzf", tarball], { cwd: folder });
    const installed = join(folder, "node_modules", "xpatch");
    mkdirSync(dirname(installed));
    renameSync(join(folder, "package"), installed);
    project.write("package.json", JSON.stringify({ private: true, type: "module" }));
    const { dependencies } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
    for (const name of Object.keys(dependencies)) project.link(name);
    return project;
  }

  /** Puts a package of the checkout into the project. */
  link(name: string): void {
    const path = join(this.folder, "node_modules", name);
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
