import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { expect, test } from "vitest";
import { allImports, ROOMS, ROOT, roomOf, sources, wrongImports } from "../helpers/rooms.ts";
import { CONTENTS, drawRooms, roomsBlock } from "../helpers/rooms-picture.ts";

const imports = allImports();

test("every import goes down, and Node's modules stay where Node is", () => {
  expect(wrongImports(imports)).toEqual([]);
});

test("every file has a room, and every room imports or is imported", () => {
  expect(new Set(sources().map(roomOf))).toEqual(new Set(ROOMS));
  const joined = imports.flatMap(({ from, to }) =>
    /^(src|experiments)\//.test(to) && roomOf(from) !== roomOf(to) ? [roomOf(from), roomOf(to)] : [],
  );
  expect(new Set(joined)).toEqual(new Set(ROOMS));
});

test.each([
  ["src/tensor/device.ts", "src/model/walk/pass.ts"],
  ["src/kernels/elementwise/map.ts", "src/kernels/matmul/linear.ts"],
  ["src/model/checkpoint/lora/adapter.ts", "src/model/checkpoint/checkpoint.ts"],
  ["src/model/walk/pass.ts", "src/model/families/text/llama.ts"],
  ["src/model/families/text/llama.ts", "src/model/language-model.ts"],
  ["src/tasks/score.ts", "src/analysis/vectors/sweep-layers.ts"],
  ["src/analysis/vectors/sweep-layers.ts", "experiments/index.ts"],
  ["src/parity/report.ts", "src/cli/terminal/layout.ts"],
  ["src/model/prompt/prompt.ts", "src/index.ts"],
  ["src/images/files/png.ts", "node:fs"],
])("an import of %s that goes up, to %s, is found", (from, to) => {
  expect(wrongImports([...imports, { from, to }])).toEqual([expect.stringContaining(from)]);
  if (!to.startsWith("node:")) expect(wrongImports([{ from: to, to: from }])).toEqual([]);
});

test("a file in no room is an error", () => {
  expect(() => wrongImports([{ from: "src/elsewhere/file.ts", to: "src/errors.ts" }])).toThrow(
    "src/elsewhere/file.ts is in no room",
  );
});

test("a test lies where the sources have what it tests; test/project has what concerns the whole", () => {
  const tests = readdirSync(join(ROOT, "test"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => dirname(name).replaceAll(sep, "/"));
  const astray = tests.filter(
    (folder) =>
      folder !== "project" &&
      (folder === "." || ![`src/${folder}`, folder].some((name) => existsSync(join(ROOT, name)))),
  );
  expect(tests.length).toBeGreaterThan(80);
  expect(astray).toEqual([]);
});

test("the diagram in docs/design.md is that of today's imports: node scripts/run-ts.mjs scripts/draw-rooms.ts", () => {
  expect(readFileSync(join(ROOT, "docs/design.md"), "utf8")).toContain(roomsBlock(imports));
  expect(ROOMS).toEqual(expect.arrayContaining(Object.keys(CONTENTS)));
});

test("an import that joins two rooms for the first time is another diagram, one that follows from others is not", () => {
  const more = (from: string, to: string) => drawRooms([...imports, { from, to }]);
  expect(more("src/parity/report.ts", "src/figures/figure.ts")).not.toBe(drawRooms(imports));
  expect(more("src/tasks/score.ts", "src/model/walk/pass.ts")).toBe(drawRooms(imports));
});
