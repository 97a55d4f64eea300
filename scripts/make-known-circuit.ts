/**
 * Writes the hand-built model of docs/known-circuit.md, its variants, and their tasks:
 *
 *   node scripts/run-ts.mjs scripts/make-known-circuit.ts <folder>
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { knownCircuit, VARIANTS } from "./known-circuit/circuit.ts";
import { taskFiles } from "./known-circuit/facts.ts";

const [folder] = process.argv.slice(2);
if (!folder) throw new Error("expected a folder to write to");
for (const [name, options] of Object.entries(VARIANTS)) {
  mkdirSync(join(folder, name), { recursive: true });
  for (const [file, bytes] of await knownCircuit(options)) writeFileSync(join(folder, name, file), bytes);
}
mkdirSync(join(folder, "tasks"), { recursive: true });
for (const [file, text] of Object.entries(taskFiles())) writeFileSync(join(folder, "tasks", file), text);
console.log(`${[...Object.keys(VARIANTS), "tasks"].join(", ")} are in ${folder}`);
