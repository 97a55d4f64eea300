/**
 * Copies the pages to a folder of their own, at the same paths, as TypeDoc takes them: titles and groups as front matter, diagrams as
 * pictures, and files of the checkout that a page links to as plain text beside it.
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, posix } from "node:path";
import { renderMermaidSVG } from "beautiful-mermaid";
import { DocsFault } from "./fault.mjs";
import { FRONT, PAGES, SHORT_TITLES, WITH_FOLDER } from "./pages.mjs";

const PICTURES = /\.(svg|png|webp|jpg)$/;
/** A link's target outside of code: path, heading. */
const LINK = /\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)/g;

/** Stages every page into `folder`. Gives the paths there of the top pages; those under another are named in its front matter. */
export function stagePages(checkout, folder) {
  const under = new Map(WITH_FOLDER.map((page) => [page, pagesBeside(checkout, page)]));
  const grouped = Object.entries(PAGES).flatMap(([group, pages]) => pages.map((page) => [page, group]));
  const listed = new Set([FRONT, ...grouped.map(([page]) => page), ...[...under.values()].flat()]);
  const missing = pagesIn(checkout, "docs").filter((page) => !listed.has(page));
  if (missing.length > 0) throw new DocsFault(`site/pages.mjs does not list ${missing.join(", ")}`);

  const stage = (page, front) => {
    const text = readFileSync(join(checkout, page), "utf8");
    const linked = outsideCode(page === FRONT ? text.replace(/^# .*\n+/, "") : text, (prose) =>
      prose.replace(LINK, (_, path, heading = "") => `](${stagedTarget(page, path)}${heading})`),
    );
    const head = frontMatter({ title: titleOf(page, text), path: page, ...front });
    write(join(folder, page), `---\n${head}\n---\n${withDiagrams(linked, page, folder)}`);
  };
  const stagedTarget = (page, path) => {
    if (path === "") return path;
    const target = posix.join(posix.dirname(page), path);
    if (target.endsWith(".md")) {
      if (!listed.has(target))
        throw new DocsFault(`${page} links to ${target}, which is no page of the site`);
      return path;
    }
    if (PICTURES.test(target)) {
      mkdirSync(dirname(join(folder, target)), { recursive: true });
      copyFileSync(join(checkout, target), join(folder, target));
      return path;
    }
    const isFolder = statSync(join(checkout, target)).isDirectory();
    const text = isFolder ? `${listing(checkout, target)}\n` : readFileSync(join(checkout, target));
    const name = `${target.replace(/\/$/, "").replaceAll("/", "-")}.txt`;
    write(join(folder, "files", name), text);
    return posix.relative(posix.dirname(page), `files/${name}`);
  };

  stage(FRONT, {});
  for (const [page, group] of grouped) {
    const children = under.get(page) ?? [];
    for (const child of children) stage(child, {});
    const names = Object.fromEntries(
      children.map((child) => [child, posix.relative(posix.dirname(page), child)]),
    );
    stage(page, { group, ...(children.length > 0 && { children: names }) });
  }
  return grouped.map(([page]) => join(folder, page));
}

/** As YAML without braces, in which TypeDoc would look for tags. */
function frontMatter(values) {
  return Object.entries(values)
    .map(([key, value]) => {
      if (typeof value === "string") return `${key}: ${JSON.stringify(value)}`;
      const lines = Object.entries(value).map(
        ([name, path]) => `  ${JSON.stringify(name)}: ${JSON.stringify(path)}`,
      );
      return [`${key}:`, ...lines].join("\n");
    })
    .join("\n");
}

function titleOf(page, text) {
  if (SHORT_TITLES[page] !== undefined) return SHORT_TITLES[page];
  const [, title] = /^# (.*)$/m.exec(text) ?? [];
  // A table of the report has no heading: docs/report/lens/phases.md is "lens: phases".
  return title?.replaceAll("`", "") ?? page.split("/").slice(-2).join(": ").replace(/\.md$/, "");
}

function pagesIn(checkout, folder) {
  return readdirSync(join(checkout, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => posix.join(folder, name.replaceAll("\\", "/")))
    .sort();
}

function pagesBeside(checkout, page) {
  return pagesIn(checkout, posix.dirname(page)).filter((other) => other !== page);
}

function listing(checkout, folder) {
  return readdirSync(join(checkout, folder), { recursive: true, encoding: "utf8" }).sort().join("\n");
}

/** Changes a page's text, but not its code. */
export function outsideCode(markdown, change) {
  return markdown
    .split(/(^```.*?^```$)/ms)
    .map((part, i) => (i % 2 === 1 ? part : change(part)))
    .join("");
}

/** Mermaid's diagrams as pictures: GitHub draws them itself. */
function withDiagrams(markdown, page, folder) {
  let count = 0;
  return markdown.replace(/^```mermaid\n(.*?)\n```$/gms, (_, source) => {
    const name = `${posix.basename(page, ".md")}-${++count}.svg`;
    // The picture brings its colours; of the fonts only those that the reader has.
    const svg = renderMermaidSVG(source, { font: "sans-serif" }).replace(/@import[^\n]*;/g, "");
    write(join(folder, posix.dirname(page), name), svg);
    return `![](${name})`;
  });
}

function write(file, content) {
  mkdirSync(dirname(file), { recursive: true });
  if (!existsSync(file)) writeFileSync(file, content);
}
