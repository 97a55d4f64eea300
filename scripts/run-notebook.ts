/**
 * Runs a notebook in Deno's kernel and writes what its cells give into it:
 *
 *   npm run setup -- model runtimes
 *   node scripts/run-ts.mjs scripts/run-notebook.ts examples/xpatch.ipynb
 */
import { readFileSync, writeFileSync } from "node:fs";
import { codeCells, type Notebook, outputsOf } from "../test/helpers/notebook.ts";

const [file = "examples/xpatch.ipynb"] = process.argv.slice(2);
const notebook = JSON.parse(readFileSync(file, "utf8")) as Notebook;
const outputs = await outputsOf(notebook, file);
for (const [i, cell] of codeCells(notebook).entries()) {
  cell.execution_count = i + 1;
  // The driver's remarks are not the notebook's.
  cell.outputs = outputs[i]?.filter(({ name }) => name !== "stderr") ?? [];
}
writeFileSync(file, `${JSON.stringify(notebook, undefined, 1)}\n`);
const failed = outputs.flat().find(({ output_type }) => output_type === "error");
if (failed) {
  console.error(failed.evalue);
  process.exitCode = 1;
}
