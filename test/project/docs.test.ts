import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { formatWithOptions } from "node:util";
import { afterAll, describe, expect, test, vi } from "vitest";
import { cacheFolder } from "../../src/platform/node-cache.ts";

/** Pages whose `ts` blocks, one after the other, are a program; lines `// → …` are what the program prints next. */
const PROGRAMS = [
  "README.md",
  "docs/tutorial.md",
  "docs/patching.md",
  "docs/figures.md",
  "docs/kernels.md",
  "docs/checkpoints.md",
  "docs/coming-from.md",
  "docs/gradients.md",
  "docs/interventions.md",
  "docs/activations.md",
  "docs/sparse-autoencoders.md",
];

const SMOLLM2 = join(cacheFolder(), "models", "smollm2-135m-instruct");

const folder = mkdtempSync(join(tmpdir(), "xpatch-docs-"));
afterAll(() => rmSync(folder, { recursive: true }));

function programOf(page: string): string {
  const blocks = [...readFileSync(page, "utf8").matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code);
  return `${blocks.join("\n")}\nexport {};\n`;
}

/** The program as a module outside the checkout, which means this checkout's sources by "xpatch"; the pages share models. */
function write(page: string): string {
  const file = join(folder, `${page.replaceAll("/", "-")}.mts`);
  writeFileSync(
    file,
    programOf(page).replaceAll(
      'from "xpatch"',
      `from ${JSON.stringify(resolve("test/helpers/shared-model.ts"))}`,
    ),
  );
  return file;
}

describe("programs in the documentation", () => {
  test("have no type errors", () => {
    const settings = {
      extends: resolve("tsconfig.json"),
      compilerOptions: {
        typeRoots: [resolve("node_modules/@types"), resolve("node_modules")],
        allowImportingTsExtensions: true,
        rewriteRelativeImportExtensions: false,
      },
      include: PROGRAMS.map(write),
    };
    const project = join(folder, "tsconfig.json");
    writeFileSync(project, JSON.stringify(settings));
    const tsc = ["node_modules/typescript/bin/tsc", "-p", project, "--pretty", "false"];
    const { stdout, status } = spawnSync(process.execPath, tsc, { encoding: "utf8" });
    expect(stdout).toBe("");
    expect(status).toBe(0);
  });

  test.each(PROGRAMS)("%s prints what it says", async (page) => {
    const printed: string[] = [];
    const log = vi.spyOn(console, "log").mockImplementation((...values) => {
      printed.push(...formatWithOptions({ breakLength: Number.POSITIVE_INFINITY }, ...values).split("\n"));
    });
    const { argv } = process;
    // Where set-up had no pip, it left SmolLM2 in the hub's cache.
    const ref = existsSync(SMOLLM2) ? "xpatch:smollm2" : "HuggingFaceTB/SmolLM2-135M-Instruct";
    process.argv = ["node", page, ref, folder];
    try {
      await import(/* @vite-ignore */ write(page));
    } finally {
      process.argv = argv;
      log.mockRestore();
    }
    const promised = [...programOf(page).matchAll(/^ *\/\/ → ?(.*)$/gm)].map(([, line]) => line);
    expect(promised.length).toBeGreaterThan(0);
    expect(printed).toEqual(promised);
  });
});

test.each([
  ["Load a model", 2],
  ["Cache everything, or some of it", 3],
  ["Patch every layer and position: a heat map", 1],
  ["Rank the heads", 3],
  ["Where a head looks", 2],
])("docs/coming-from.md: %s, in at most %i lines besides imports", (heading, most) => {
  const page = readFileSync("docs/coming-from.md", "utf8");
  const section = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  const [, block] = /^```ts\n(.*?)^```$/ms.exec(section!)!;
  const lines = block!.split("\n").filter((line) => line !== "" && !/^(import|\/\/) /.test(line));
  expect(lines.length).toBeGreaterThan(0);
  expect(lines.length).toBeLessThanOrEqual(most);
});

test("every picture in the documentation has its caption below, the one that its file carries if it carries one", () => {
  const pages = readdirSync("docs", { recursive: true, encoding: "utf8" }).map((name) => join("docs", name));
  let seen = 0;
  for (const page of ["README.md", ...pages].filter((name) => name.endsWith(".md"))) {
    const text = readFileSync(page, "utf8");
    for (const [, target, below] of text.matchAll(/^!\[[^\]]*\]\(([^)]+)\)\n\n((?:.+\n)+)/gm)) {
      seen++;
      expect(below, `${page}: ${target}`).toMatch(/^\*[A-Z]/);
      const [, caption] =
        /<desc>(.*?)<\/desc>/.exec(readFileSync(join(dirname(page), target!), "utf8")) ?? [];
      if (caption === undefined) continue;
      const plain = caption.replace(
        /&(lt|gt|quot|amp);/g,
        (_, name) => ({ lt: "<", gt: ">", quot: '"', amp: "&" })[name as "lt"],
      );
      expect(below!.replaceAll("\n", " ").replaceAll("\\", ""), `${page}: ${target}`).toContain(plain);
    }
    const pictures = text.match(/^!\[/gm)?.length ?? 0;
    seen -= pictures;
  }
  expect(seen).toBe(0);
});

test("links in the documentation lead to files and headings that exist", () => {
  const pages = [
    ...readdirSync("."),
    ...readdirSync("docs").map((name) => `docs/${name}`),
    ...readdirSync("docs/families").map((name) => `docs/families/${name}`),
    "docs/report/README.md",
    "weights/README.md",
  ];
  const broken: string[] = [];
  for (const page of pages.filter((name) => name.endsWith(".md"))) {
    const text = readFileSync(page, "utf8");
    for (const [, path = "", heading] of text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)) {
      const target = path === "" ? page : join(dirname(page), path);
      if (!existsSync(target) || (heading !== undefined && !anchorsOf(target).has(heading)))
        broken.push(`${page}: ${path}${heading === undefined ? "" : `#${heading}`}`);
    }
  }
  expect(broken).toEqual([]);
});

/** What GitHub makes of a page's headings, and the anchors that it sets itself. */
function anchorsOf(page: string): Set<string> {
  const text = readFileSync(page, "utf8");
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
    title!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
  return new Set([...headings, ...[...text.matchAll(/<a id="([^"]+)">/g)].map(([, id]) => id!)]);
}

test("types that the glossary and the design name are in the sources", () => {
  const code = readdirSync("src", { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => readFileSync(join("src", name), "utf8"))
    .join("\n");
  const isOurs = (name: string) =>
    new RegExp(`^export (abstract )?(class|interface|type) ${name}\\b`, "m").test(code);
  const named = ["docs/glossary.md", "docs/design.md"].flatMap((page) => {
    // What the glossary's last column names is elsewhere.
    const own = readFileSync(page, "utf8").replace(/^(\|.*\|.*)\|.*\|$/gm, "$1");
    return [...own.matchAll(/`([A-Z][a-z]+(?:[A-Z][a-z]*)*)`/g)].map(([, name]) => name!);
  });
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => !isOurs(name))).toEqual([]);
});

test("the reading tour has at most ten files and a thousand lines, and says how long each is", () => {
  const [, tour] = /^## A reading tour[^\n]*\n(.*?)^## /ms.exec(readFileSync("docs/design.md", "utf8"))!;
  const stops = [...tour!.matchAll(/^\| \[`([^`]+)`\]\([^)]+\) \| (\d+) \|/gm)];
  const lines = stops.map(([, file]) => readFileSync(file!, "utf8").trimEnd().split("\n").length);
  expect(stops.length).toBeGreaterThan(5);
  expect(stops.length).toBeLessThanOrEqual(10);
  expect(lines.reduce((sum, n) => sum + n)).toBeLessThanOrEqual(1000);
  const wrong = stops.flatMap(([, file, said], i) =>
    Math.abs(lines[i]! - Number(said)) > 10 ? [`${file} has ${lines[i]} lines`] : [],
  );
  expect(wrong).toEqual([]);
});
