import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { expect, test } from "vitest";
// @ts-expect-error: plain JavaScript
import * as pages from "../../site/pages.mjs";
// @ts-expect-error: plain JavaScript
import * as rooms from "../../site/rooms.mjs";

/*
 * `npm run docs` makes the site and the reference, with a compiler and packages of its own, in about a minute; it fails where TypeDoc
 * warns. These tests hold, in a second, what a change is most likely to break of it.
 */

const exportsOf: (source: string) => { statement: string; path: string }[] = rooms.exportsOf;
const SOURCES = readdirSync("src", { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => posix.join("src", name.replaceAll("\\", "/")));

interface Export {
  readonly file: string;
  /** Its name there. */
  readonly name: string;
}

/** Everything that a module exports, as what declares it. */
function declared(module: string): Export[] {
  const source = readFileSync(module, "utf8");
  const own = [
    ...source.matchAll(
      /^export (?:declare |abstract |async )*(?:const|class|interface|type|function\*?) (\w+)/gm,
    ),
  ];
  const others = exportsOf(source).flatMap(({ statement, path }) => {
    const file = posix.join(dirname(module), path);
    if (statement.endsWith("*")) return declared(file);
    const names = /\{([^}]*)\}/
      .exec(statement)![1]!
      .split(",")
      .map((name) => name.trim());
    return names
      .filter((name) => name !== "")
      .map((name) => ({ file, name: name.replace(/^type /, "").replace(/ as .*$/, "") }));
  });
  return [...new Set(own.map(([, name]) => name!))].map((name) => ({ file: module, name })).concat(others);
}

/** The docstring above a declaration; undefined where there is none. */
function docstringOf({ file, name }: Export): string | undefined {
  const source = readFileSync(file, "utf8");
  const declaration = new RegExp(
    `^export (?:declare |abstract |async )*(?:const|class|interface|type|function\\*?) ${name}\\b`,
    "m",
  ).exec(source);
  if (!declaration) {
    const elsewhere = exportsOf(source).find(({ statement }) =>
      new RegExp(`[{ ]${name}[, }]`).test(statement),
    );
    return elsewhere && docstringOf({ file: posix.join(dirname(file), elsewhere.path), name });
  }
  return /\/\*\*((?:(?!\*\/).)*)\*\/\n$/s.exec(source.slice(0, declaration.index))?.[1];
}

const api = ["src/index.ts", "src/session/index.ts", "src/session/host.ts"].flatMap(declared);

test("everything that the public API exports has a docstring", () => {
  expect(api.length).toBeGreaterThan(400);
  const bare = api.filter((one) => !docstringOf(one)?.match(/\w/));
  expect(bare.map(({ file, name }) => `${file}: ${name}`)).toEqual([]);
});

test("every method of a class of the public API has a docstring", () => {
  let methods = 0;
  const bare = api.flatMap(({ file, name }) => {
    const source = readFileSync(file, "utf8");
    const [, body] = new RegExp(`^export class ${name}\\b(.*?)^}`, "ms").exec(source) ?? [];
    const found = [
      ...(body ?? "").matchAll(
        /^(.*)\n {2}(?:static |async |get |\*)*(?!constructor)([a-z]\w*)(?:<.*)?\(.*$/gm,
      ),
    ];
    methods += found.length;
    return found
      .filter(([, before]) => !before!.endsWith("*/") && !/^ {2}\S.*;$/.test(before!))
      .map(([, , method]) => `${file}: ${name}.${method}`);
  });
  expect(methods).toBeGreaterThan(100);
  expect(bare).toEqual([]);
});

test("what a docstring links to is in the scope of its file, or in the public API", () => {
  const exported = new Set(api.map(({ name }) => name));
  let links = 0;
  const broken = SOURCES.flatMap((file) => {
    const source = readFileSync(file, "utf8");
    const code = source.replace(/\/\*.*?\*\//gs, "");
    const names = [...source.matchAll(/\{@link (\w+)/g)].map(([, name]) => name!);
    links += names.length;
    return names
      .filter((name) => !exported.has(name) && !new RegExp(`\\b${name}\\b`).test(code))
      .map((name) => `${file}: ${name}`);
  });
  expect(links).toBeGreaterThan(20);
  expect(broken).toEqual([]);
});

test("the site has a place for every page of docs/, and for every room of the public API", () => {
  const inOrder = Object.values(pages.PAGES as Record<string, string[]>).flat();
  const listed = new Set(inOrder);
  expect(listed.size).toBe(inOrder.length);
  const foldersOf = (pages.WITH_FOLDER as string[]).map((page) => dirname(page));
  const there = readdirSync("docs", { recursive: true, encoding: "utf8" })
    .map((name) => join("docs", name).replaceAll("\\", "/"))
    .filter((name) => name.endsWith(".md") && !foldersOf.some((folder) => name.startsWith(`${folder}/`)));
  expect(there.length).toBeGreaterThan(20);
  expect(there.filter((page) => !listed.has(page))).toEqual([]);
  const used = new Set(
    exportsOf(readFileSync("src/index.ts", "utf8")).map(({ path }) => rooms.roomOf(path) as string),
  );
  expect([...used].sort()).toEqual(Object.keys(rooms.ROOMS).sort());
});

test("the site colours the language of every code block", () => {
  const inOrder = Object.values(pages.PAGES as Record<string, string[]>).flat();
  const found = [pages.FRONT as string, ...inOrder].flatMap((page) =>
    Array.from(readFileSync(page, "utf8").matchAll(/^```([a-z]+)$/gm), ([, language]) => language!),
  );
  expect(found.length).toBeGreaterThan(50);
  const coloured = new Set([...(pages.LANGUAGES as string[]), "mermaid"]); // which is drawn
  expect([...new Set(found)].filter((language) => !coloured.has(language))).toEqual([]);
});
