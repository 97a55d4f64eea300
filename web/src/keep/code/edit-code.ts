import type { ArraySpec } from "../../../../src/session/messages/values.ts";
import type { Patch } from "../../vectors/patched.ts";
import { placeOf, type Recipe, recipeName } from "../../vectors/recipe.ts";
import { editSpecs, type Wanted, wantedBy, wantedKey } from "../../views/lens/edit-specs.ts";
import type { Question } from "../questions.ts";
import { type Program, text } from "./program.ts";
import { promptCode, taskCode } from "./prompt-code.ts";

/** The edit that puts a vector in place of what a layer has at the last token. */
export function patchCode(program: Program, { recipe, layer }: Patch): string {
  const edit = patcherCode(program, recipe);
  return edit(String(layer));
}

/** The same for a layer that the program has in a variable. */
export function patcherCode(program: Program, recipe: Recipe): (layer: string) => string {
  const place = placeOf(recipe);
  if (!place) {
    const vectors = vectorsCode(program, recipe);
    program.use(["patchOf"]);
    return (layer) => `patchOf(${vectors}, ${layer})`;
  }
  const { site, head } = place;
  const row = rowCode(program, recipe);
  program.use(["set"]);
  const options = head === undefined ? "" : `, { head: ${head} }`;
  return (layer) => {
    const name = /^\d+$/.test(layer) ? text(`${site}.${layer}`) : `\`${site}.\${${layer}}\``;
    return `set(${name}, -1, ${row}${options})`;
  };
}

/** A sum of others, each by its weight, as `mixVectors` of a session computes it. */
function sumCode(
  program: Program,
  parts: readonly { readonly code: string; readonly weight: number }[],
): string {
  program.use(["mul"]);
  if (parts.length > 1) program.use(["add"]);
  return parts
    .map(({ code, weight }) => `mul(${code}, ${weight})`)
    .reduce((sum, part) => `add(${sum}, ${part})`);
}

/** The name of what one place holds: [features]. */
function rowCode(program: Program, recipe: Recipe): string {
  const known = `row ${JSON.stringify(recipe)}`;
  const hint = recipeName(recipe);
  switch (recipe.kind) {
    case "place": {
      const { prompt, site, layer, position, head } = recipe;
      const from = promptCode(program, prompt, "source");
      program.use(["tap"]);
      const options = head === undefined ? "" : `, { head: ${head} }`;
      return program.define(
        known,
        hint,
        () =>
          `model.run(${from}, { taps: { v: tap(${text(`${site}.${layer}`)}, ${position}${options}) } }).v`,
      );
    }
    case "file":
      program.use(["readFile"], "node:fs/promises");
      program.helper(`/** What one place of a prompt holds, of a file that the explorer has saved. */
async function readPlace(path: string) {
  const bytes = await readFile(path);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const { values } = JSON.parse(bytes.toString("utf8", 8, start));
  const [from, to] = values.data_offsets.map((offset: number) => start + offset);
  return device.tensor(new Float32Array(Uint8Array.from(bytes.subarray(from, to)).buffer));
}`);
      return program.define(known, hint, () => `await readPlace(${text(recipe.name)})`);
    case "mix": {
      const parts = recipe.parts.map((part) => ({
        code: rowCode(program, part.recipe),
        weight: part.weight,
      }));
      return program.define(known, hint, () => sumCode(program, parts));
    }
    default:
      throw unlike(recipe);
  }
}

function unlike(recipe: Recipe): Error {
  return new Error(
    `a vector of one place cannot be mixed with one that has a vector a layer: ${recipeName(recipe)}`,
  );
}

/** The name of the vectors of a recipe, one a layer. */
export function vectorsCode(program: Program, recipe: Recipe): string {
  if (placeOf(recipe)) throw unlike(recipe);
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
    case "place": {
      const { prompt, site, position } = recipe;
      const from = promptCode(program, prompt, "source");
      program.use(["extractTaskVectors"]);
      const options = `{ at: ${position}${site === "resid_post" ? "" : `, site: ${text(site)}`} }`;
      return program.define(known, hint, () => `extractTaskVectors(model, [${from}], ${options})`);
    }
    case "mix": {
      const parts = recipe.parts.map((part) => ({
        name: vectorsCode(program, part.recipe),
        weight: part.weight,
      }));
      program.use(["TaskVectors"]);
      const sum = sumCode(
        program,
        parts.map(({ name, weight }) => ({ code: `${name}.vectors`, weight })),
      );
      return program.define(known, hint, () => `new TaskVectors(${sum}, ${parts[0]!.name}.origin)`);
    }
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
