import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { codeCells, type Notebook, type Output, outputsOf } from "../helpers/notebook.ts";

const notebooks = readdirSync("examples").filter((name) => name.endsWith(".ipynb"));

/** What a cell shows: words as they are, numbers to two digits, of drawings what is written in them. */
function shown(outputs: readonly Output[]): string[] {
  return (
    outputs
      .filter(({ name }) => name !== "stderr") // the driver's remarks
      .flatMap(({ output_type, text, evalue, data = {} }) => [
        output_type,
        evalue ?? text?.join("") ?? "",
        ...Object.entries(data).map(([mime, lines]) => {
          const all = lines.join("");
          const words =
            mime === "image/svg+xml"
              ? [...all.matchAll(/<(?:text|title)[^>]*>([^<]*)/g)]
                  .map(([, text]) => text!.replace(/[\d.]+ %/g, "%"))
                  // How many lines the setting takes depends on the adapter's name; it is in the text too.
                  .filter((text) => text !== "" && !/^\S+ \(\w+, /.test(text))
              : [all];
          return `${mime}: ${words.join("\n")}`;
        }),
      ])
      // Whichever adapter it was computed on.
      .map((text) => text.replace(/^(.* \(\w+, \w+\)(?: · LoRA [^·]*)?) · .*$/gm, "$1"))
      .map((text) => text.replace(/-?\d+\.\d+/g, (number) => String(Number(Number(number).toPrecision(2)))))
  );
}

test.each(notebooks)("%s gives in Deno's kernel what its file shows", async (name) => {
  const file = resolve("examples", name);
  const notebook = JSON.parse(readFileSync(file, "utf8")) as Notebook;
  const kept = codeCells(notebook).map(({ outputs }) => shown(outputs!));
  expect(kept.flat().join("\n")).toMatch(/layer 23: % on the image/);
  expect((await outputsOf(notebook, file)).map(shown)).toEqual(kept);
});

test("there is a notebook", () => expect(notebooks).toContain("xpatch.ipynb"));
