import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { OutsideProject, ROOT } from "../helpers/outside-project.ts";

// docs/first-hour.md in an empty folder, with what `npm pack` makes of this checkout: nothing is done that the page does not say.

const PAGE = readFileSync(join(ROOT, "docs", "first-hour.md"), "utf8");

/** The page's blocks of a language. */
function blocks(language: string): string[] {
  const pattern = new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms");
  return [...PAGE.matchAll(pattern)].map(([, text]) => text!);
}

let project: OutsideProject;
beforeAll(() => {
  project = OutsideProject.create();
  // What the page installs besides xpatch; `npm init` and `npm pkg` are in the project's package.json.
  for (const name of ["typescript", "@types/node", "undici-types"]) project.link(name);
  project.write("tsconfig.json", blocks("json")[0]!);
  project.write("first-hour.ts", blocks("ts").join("\n"));
});
afterAll(() => project?.remove());

/** Runs a command of the page in the project's folder and returns what it prints. */
function command(line: string): string {
  const { bin } = JSON.parse(
    readFileSync(join(project.folder, "node_modules", "xpatch", "package.json"), "utf8"),
  );
  const programs: Readonly<Record<string, string>> = {
    "npx tsc": join("node_modules", "typescript", "bin", "tsc"),
    "npx xpatch": join("node_modules", "xpatch", bin.xpatch),
  };
  const node = JSON.stringify(process.execPath);
  let shell = line.replace(/\bnode (?=\S+\.js)/g, `${node} `);
  for (const [name, file] of Object.entries(programs)) shell = shell.replace(name, `${node} ${file}`);
  const { status, stdout, stderr } = spawnSync(shell, {
    shell: true,
    cwd: project.folder,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`${line} ended with ${status}:\n${stdout}${stderr}`);
  return stdout;
}

test("the page installs what the test puts there", () => {
  expect(blocks("sh")[0]).toContain("npm pkg set type=module");
  expect(blocks("sh")[0]).toContain("npm install <path of the checkout> typescript @types/node\n");
  expect(JSON.parse(blocks("json")[0]!).compilerOptions.strict).toBe(true);
});

test("its program compiles with strict rules and prints what the page says", () => {
  const [, run] = /`(npx tsc [^`]*)`/.exec(PAGE)!;
  const promised = [
    ...blocks("ts")
      .join("\n")
      .matchAll(/^\/\/ → (.*)$/gm),
  ].map(([, line]) => line);
  expect(promised.length).toBeGreaterThan(10);
  expect(command(run!).trimEnd().split("\n")).toEqual(promised);
  const [map, head, flag] = ["map.html", "head.svg", "flag.svg"].map((name) =>
    readFileSync(join(project.folder, name), "utf8"),
  );
  expect(map).toMatch(/^<!DOCTYPE html>.*resid_pre\.24.*<\/html>\s*$/is);
  expect(head).toMatch(/^<svg .*France.*<\/svg>\s*$/s);
  expect(flag).toMatch(/^<svg .*layer 4.*layer 11.*layer 22.*<\/svg>\s*$/s);
  expect(PAGE.match(/^## \d+\. /gm)).toHaveLength(10);
});

test("its command writes JSON", () => {
  command(blocks("sh")[1]!.trim());
  const { cells } = JSON.parse(readFileSync(join(project.folder, "lens.json"), "utf8"));
  expect(cells).toHaveLength(1);
  expect(cells[0]).toMatchObject({ layer: 29, position: 4 });
  expect(JSON.stringify(cells[0].tokens[0])).toContain("Paris");
});
