import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./rooms.ts";

/** Outputs that a random model may hit upon, so that there is something to be right in. */
const LETTERS = [..."abcdefghijklmnopqrstuvwxyz"];

/** A folder with a plan over tiny models and tasks of four items a split. */
export function writePlan(
  folder: string,
  {
    models = ["llama"],
    tasks = ["alpha", "gamma"],
    more = "",
  }: { models?: string[]; tasks?: string[]; more?: string } = {},
): string {
  mkdirSync(folder, { recursive: true });
  for (const name of tasks) {
    const items = ["validation", "test"].flatMap((split) =>
      [0, 1, 2, 3].map((i) => ({
        input: `${name} ${split} ${i}`,
        output: LETTERS.filter((_, t) => (t * 7 + i * 5 + name.length) % 11 < 5),
        split,
      })),
    );
    writeFileSync(join(folder, `${name}.json`), JSON.stringify({ name, instruction: `The ${name}:`, items }));
  }
  const path = join(folder, "plan.yaml");
  writeFileSync(
    path,
    `models:
${models.map((name) => `  - { model: ${modelFolder(name)}, label: ${name} }`).join("\n")}
tasks: [${tasks.map((name) => `${name}.json`).join(", ")}]
seeds: 2
experiments: [sweep, instructions]
options:
  shots: 2
  validation-items: 3
  test-items: 3
${more}`,
  );
  return path;
}

export function modelFolder(family: string): string {
  return join(ROOT, "test", "fixtures", family, "model");
}
