import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { parsePlan } from "../../../experiments/grid/plan-file.ts";
import { gridCommand } from "../../../src/cli/commands/grid.ts";
import { ROOT } from "../../helpers/rooms.ts";

const page = readFileSync(join(ROOT, "docs/grids.md"), "utf8");

/** The blocks of code of a section. */
function blocks(heading: string): string[] {
  const [, section] = new RegExp(`\n## ${heading}\n(.*?)(?=\n## |$)`, "s").exec(page) ?? [];
  return [...section!.matchAll(/```\w*\n(.*?)```/gs)].map(([, code]) => code!);
}

/** `xpatch grid` with its words, wherever it stands in a script. */
const commands = [...page.matchAll(/(?<=^|[ "])xpatch grid ([a-z]+ [^\n"`#]*)/gm)].map(([, words]) =>
  words!
    .replaceAll(/\{wildcards\.\w+\}/g, "1")
    .trim()
    .split(/\s+/),
);

test("the page's commands are some", () => expect(commands.length).toBeGreaterThan(10));

test.each(commands.map((words) => [words.join(" "), words] as const))(
  "xpatch grid %s is a command",
  async (_, words) => {
    const command = gridCommand();
    const called: string[] = [];
    const replace = (one: Command) => {
      one.action((...args: unknown[]) => void called.push((args.at(-1) as Command).name()));
    };
    for (const part of command.commands) replace(part);
    await command.parseAsync(words, { from: "user" });
    expect(called).toEqual([words[0]]);
  },
);

test("the page's plan is one, of as many runs as it says", () => {
  const plan = parsePlan(blocks("A plan")[0]!, "plan.yaml");
  expect(plan.models.map(({ label }) => label)).toEqual(["vlm", "llava"]);
  expect(plan.models.length * plan.variants.length).toBe(4);
  expect(page).toContain("The plan above has four.");
});

test("the scripts for Slurm are shell, and ask for an array", () => {
  const scripts = blocks("Slurm");
  expect(scripts[0]).toMatch(/^#!\/bin\/bash\n#SBATCH --array=\d+-\d+ /);
  for (const script of scripts) {
    expect(spawnSync("sh", ["-n"], { input: script, encoding: "utf8" })).toMatchObject({
      status: 0,
      stderr: "",
    });
  }
});

test("the indexed job runs a worker and tells it how many there are", () => {
  const { spec, kind } = parse(blocks("Kubernetes")[0]!);
  const [container] = spec.template.spec.containers;
  expect([kind, spec.completionMode]).toEqual(["Job", "Indexed"]);
  expect(container.command).toEqual(["npx", "xpatch", "grid", "run", "/shared/store"]);
  expect(container.env).toEqual([{ name: "JOB_COMPLETIONS", value: `${spec.completions}` }]);
});
