import { execFileSync } from "node:child_process";
import { Command } from "commander";
import { expect, test } from "vitest";
import { labOptions } from "../../../experiments/index.ts";
import {
  addExperimentOptions,
  type ExperimentArguments,
  shownOptions,
} from "../../../src/cli/options/experiment-options.ts";

function parsed(words: readonly string[]) {
  const command = addExperimentOptions(new Command("experiment")).exitOverride();
  command.parse(words, { from: "user" });
  return { command, args: command.opts() as ExperimentArguments };
}

test.each([
  [[], ""],
  [["--out", "elsewhere"], ""],
  [["--seeds", "3"], ""],
  [["--seeds", "2", "--layer-by", "task"], " --seeds 2 --layer-by task"],
  [["--stack", "decoder"], ""],
  [["--stack", "encoder"], " --stack encoder"],
  [["--specifications", "instruction,text"], " --specifications text,instruction"],
  [["--tasks", "a, b's.csv"], " --tasks 'a,b'\\''s.csv'"],
  [["--template", "Q:{x}\\nA:{y}\\n\\n"], " --template 'Q:{x}\\nA:{y}\\n\\n'"],
  [["--template", "{x}\\\\n = {y}\\t"], " --template '{x}\\\\n = {y}\\t'"],
])("%j is shown as%s, which means the same", (words, shown) => {
  const { command, args } = parsed(words);
  expect(shownOptions(command, args)).toBe(shown);
  // As a shell divides it into words.
  const script = `for word in "$@"; do printf '%s\\0' "$word"; done`;
  const divided = execFileSync("sh", ["-c", `set -- ${shown}\n${script}`], { encoding: "utf8" });
  const again = parsed(divided.split("\0").slice(0, -1));
  expect(labOptions(again.args)).toEqual(labOptions(args));
  expect(again.args.tasks).toEqual(args.tasks);
});

test.each([[[]], [["--protocol", "paper"]]])(
  "the encoder is part of a setting, the decoder none: %j",
  (words) => {
    const of = (...more: string[]) => labOptions(parsed([...words, ...more]).args);
    expect(of("--stack", "encoder")).toEqual({ ...of(), stack: "encoder" });
    expect(of("--stack", "decoder")).toEqual(of());
    expect(of()).not.toHaveProperty("stack");
  },
);
