import type { ArraySpec } from "../../../../src/session/messages/values.ts";
import type { Patch } from "../../vectors/patched.ts";
import { type Recipe, recipeName } from "../../vectors/recipe.ts";
import { editSpecs, type Wanted, wantedBy, wantedKey } from "../../views/lens/edit-specs.ts";
import type { Question } from "../questions.ts";
import { type Program, text } from "./program.ts";
import { promptCode, taskCode } from "./prompt-code.ts";

/** The edit that puts a vector in place of what a layer has at the last token. */
export function patchCode(program: Program, { recipe, layer }: Patch): string {
  if (recipe.kind !== "mix") {
    program.use(["patchOf"]);
    return `patchOf(${vectorsCode(program, recipe)}, ${layer})`;
  }
  program.use(["set"]);
  return `set("resid_post.${layer}", -1, ${rowCode(program, recipe, layer)})`;
}

/** A vector of one layer. */
function rowCode(program: Program, recipe: Recipe, layer: number): string {
  if (recipe.kind !== "mix") return `${vectorsCode(program, recipe)}.at(${layer})`;
  program.use(["mul"]);
  const parts = recipe.parts.map((part) => `mul(${rowCode(program, part.recipe, layer)}, ${part.weight})`);
  if (parts.length > 1) program.use(["add"]);
  return parts.reduce((sum, part) => `add(${sum}, ${part})`);
}

/** The name of the vectors of a recipe, one a layer. */
export function vectorsCode(program: Program, recipe: Exclude<Recipe, { kind: "mix" }>): string {
  const known = `vectors ${JSON.stringify(recipe)}`;
  const hint = `${recipeName(recipe)} vectors`;
  switch (recipe.kind) {
    case "examples": {
      const { task, asked, count, seed, items } = recipe;
      const name = taskCode(program, task);
      program.use(["extractTaskVectors", "taskSource"]);
      program.useType("Task");
      program.helper(`/** The mean over prompts with examples of what each layer has at the last example's answer cue. */
async function vectorsOf(
  task: Task,
  options: { kind: "text" | "image"; count: number; seed: number; items: number },
) {
  const { prompts, at } = await taskSource(model, task, "train", options);
  return extractTaskVectors(model, prompts, { at });
}`);
      return program.define(
        known,
        hint,
        () =>
          `await vectorsOf(${name}, { kind: ${text(asked)}, count: ${count}, seed: ${seed}, items: ${items} })`,
      );
    }
    case "instruction":
      program.use(["extractTaskVectors"]);
      return program.define(
        known,
        hint,
        () => `extractTaskVectors(model, [model.prompt(${text(recipe.text)})], { at: -1 })`,
      );
    case "file":
      program.use(["decodeTaskVectors"]);
      program.use(["readFile"], "node:fs/promises");
      return program.define(
        known,
        hint,
        () => `await decodeTaskVectors(await readFile(${text(recipe.name)}), device, ${text(recipe.name)})`,
      );
  }
}

/** The edits that put places of one prompt onto another, as a list. */
export function lensEditsCode(program: Program, { source, edits }: NonNullable<Question["lens"]>): string {
  const wanted = wantedBy(edits);
  const names = new Map<Float32Array, string>();
  if (wanted.length > 0) {
    const from = promptCode(program, source, "source");
    program.use(["tap"]);
    const taps = wanted.map((each, i) => `  v${i}: ${tapCode(each)},`);
    const values = program.name("values");
    program.line(
      `const ${values} = model.run(${from}, {\n  taps: {\n${taps.map((tap) => `  ${tap}`).join("\n")}\n  },\n});`,
    );
    const held = new Map(
      wanted.map((each, i): [string, ArraySpec] => {
        const data = new Float32Array(0);
        names.set(data, `${values}.v${i}`);
        const { start, end } = each.positions;
        return [wantedKey(each), { shape: [end - start, 0], data }];
      }),
    );
    return listOf(program, edits, (each) => held.get(wantedKey(each))!, names);
  }
  return listOf(
    program,
    edits,
    () => {
      throw new Error("nothing is taken from the source");
    },
    names,
  );
}

function tapCode({ site, positions, head }: Wanted): string {
  return `tap(${text(site)}, ${rangeCode(positions)}${head === undefined ? "" : `, { head: ${head} }`})`;
}

function rangeCode({ start, end }: { readonly start: number; readonly end: number }): string {
  return `{ start: ${start}, end: ${end} }`;
}

function listOf(
  program: Program,
  edits: NonNullable<Question["lens"]>["edits"],
  holds: (wanted: Wanted) => ArraySpec,
  names: ReadonlyMap<Float32Array, string>,
): string {
  const lines = edits.flatMap((edit) =>
    editSpecs(edit, holds).map(({ operation, site, at, head, value, amount }) => {
      const where = `${text(site)}, ${rangeCode(at as { start: number; end: number })}`;
      const spec = value as ArraySpec | undefined;
      const name = spec && names.get(spec.data);
      // One token's vector is for every token.
      const row = spec && (spec.shape.length === 1 ? `${name}.at(0)` : name);
      const options = [
        ...(head === undefined ? [] : [`head: ${head}`]),
        ...(operation === "add" && amount !== 1 ? [`scale: ${amount}`] : []),
      ];
      const given = [
        where,
        ...(row ? [row] : []),
        ...(operation === "interpolate" ? [String(amount)] : []),
        ...(options.length > 0 ? [`{ ${options.join(", ")} }`] : []),
      ];
      const call = operation === "add" ? "addVector" : operation;
      program.use([call]);
      return `  ${call}(${given.join(", ")}),`;
    }),
  );
  return `[\n${lines.join("\n")}\n]`;
}
