import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { COMMANDS } from "../../src/cli/commands.ts";
import { addCommonOptions } from "../../src/cli/options/command.ts";
import { DUAL_ENCODER_KINDS } from "../../src/model/families/dual-encoder-kinds.ts";
import { FAMILIES } from "../../src/model/families/registry.ts";

const FOLDER = "docs/families";
const PAGES = readdirSync(FOLDER).filter((name) => name.endsWith(".md") && name !== "README.md");
const textOf = (page: string) => readFileSync(join(FOLDER, page), "utf8");

/** Of docs/families/README.md: which page each model_type has. */
function index(): Map<string, string> {
  const rows = [...textOf("README.md").matchAll(/^\| \[[^\]]+\]\(([^)]+)\).* \| ([^|]+) \|$/gm)];
  return new Map(
    rows.flatMap(([, page, types]) => [...types!.matchAll(/`([\w-]+)`/g)].map(([, t]) => [t!, page!])),
  );
}

test("every family has a page, which names its model_type", () => {
  const pages = index();
  const types = [...FAMILIES.map((family) => family.modelType), ...DUAL_ENCODER_KINDS];
  expect(types.filter((type) => !pages.has(type))).toEqual([]);
  expect([...pages.keys()].filter((type) => !(types as string[]).includes(type))).toEqual([]);
  for (const [type, page] of pages) expect(textOf(page), page).toContain(`\`${type}\``);
});

test("the index leads to every page", () => {
  const missing = PAGES.filter((page) => !textOf("README.md").includes(`](${page})`));
  expect(missing).toEqual([]);
});

describe.each(PAGES)("%s", (page) => {
  const text = textOf(page);
  const blocks = [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)];
  const commands = blocks
    .flatMap(([, , block]) => block!.replaceAll("\\\n", " ").split("\n"))
    .filter((line) => line.startsWith("npx xpatch "));

  test("has a command or a program, or sends to a page that has", () => {
    if (/see \[[^\]]+\]\(\w+\.md\)\.\n$/.test(text)) return;
    expect(commands.length + blocks.filter(([, language]) => language === "js").length).toBeGreaterThan(0);
  });

  test.each(commands)("%s", async (line) => {
    const [name, ...args] = words(line).slice(2);
    const command = await COMMANDS[name!]!();
    addCommonOptions(command)
      .action(() => {})
      .configureOutput({ outputError: () => {} });
    expect(() => command.parse(args, { from: "user" })).not.toThrow();
    expect(line).toMatch(/--model [\w.-]+\/[\w.-]+/);
  });
});

test("an option that there is not is noticed", async () => {
  const command = await COMMANDS["generate"]!();
  command.action(() => {}).configureOutput({ outputError: () => {}, writeErr: () => {} });
  expect(() => command.parse(["--imagine", "x"], { from: "user" })).toThrow("--imagine");
});

/** As a shell splits a line with quotes. */
function words(line: string): string[] {
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);
}
