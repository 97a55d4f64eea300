/**
 * Draws docs/pictures/rooms.svg from the imports of the sources:
 *
 *   node scripts/run-ts.mjs scripts/draw-rooms.ts
 */
import { writeFileSync } from "node:fs";
import { allImports } from "../test/helpers/rooms.ts";
import { drawRooms } from "../test/helpers/rooms-picture.ts";

writeFileSync("docs/pictures/rooms.svg", drawRooms(allImports()));
