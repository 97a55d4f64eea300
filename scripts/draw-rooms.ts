/**
 * Draws the diagram of docs/design.md from the imports of the sources:
 *
 *   node scripts/run-ts.mjs scripts/draw-rooms.ts
 */
import { readFileSync, writeFileSync } from "node:fs";
import { allImports } from "../test/helpers/rooms.ts";
import { roomsBlock } from "../test/helpers/rooms-picture.ts";

const page = readFileSync("docs/design.md", "utf8");
writeFileSync(
  "docs/design.md",
  page.replace(/```mermaid\n.*?\n```/s, () => roomsBlock(allImports())),
);
