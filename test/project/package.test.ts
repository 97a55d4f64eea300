import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, posix } from "node:path";
import { expect, test } from "vitest";

interface Packed {
  size: number;
  unpackedSize: number;
  files: { path: string }[];
}

const MEGABYTE = 1e6;

const [packed] = JSON.parse(
  execFileSync("npm", ["pack", "--dry-run", "--ignore-scripts", "--json"], { encoding: "utf8" }),
) as [Packed];
const paths = new Set(packed.files.map(({ path }) => path));

/** A page that a text sends its reader to: as a path of the checkout, or by a link relative to the text. */
const MENTION = /(?<![\w./:-])(?:docs\/[\w/-]+\.md|(?:FEATURES|CHANGELOG)\.md)\b/g;
const LINK = /\]\((?!\w+:|#)([^)#]+)/g;

test("the package stays below 30 MB, packed and unpacked", () => {
  expect(packed.unpackedSize).toBeGreaterThan(20 * MEGABYTE); // the weights are in it
  expect(packed.unpackedSize).toBeLessThan(30 * MEGABYTE);
  expect(packed.size).toBeLessThan(30 * MEGABYTE);
});

test("every page that its files mention is in it, and every page that its pages link to", () => {
  const missing: string[] = [];
  let mentions = 0;
  for (const path of paths) {
    if (!/\.(js|mjs|ts|md|json|py|ipynb)$/.test(path)) continue;
    const text = readFileSync(path, "utf8");
    const named = [...text.matchAll(MENTION)].map(([name]) => name);
    const linked = path.endsWith(".md")
      ? [...text.matchAll(LINK)].map(([, target]) => posix.join(dirname(path), target!))
      : [];
    mentions += named.length + linked.length;
    for (const name of named) if (!paths.has(name)) missing.push(`${path}: ${name}`);
    // Sources and the report's tables are in the checkout; a page says so by linking to them.
    for (const name of linked)
      if (!paths.has(name) && (name.endsWith(".md") || !existsSync(name))) missing.push(`${path}: ${name}`);
  }
  expect(mentions).toBeGreaterThan(100);
  expect(missing).toEqual([]);
});
