import type { Command } from "commander";
import { set } from "../patching/edit.ts";
import type { Generated } from "../patching/generate.ts";
import type { PatchableModel } from "../patching/model.ts";
import type { TaskVectorOrigin } from "../patching/task-vectors.ts";
import { position, wholeNumber } from "./arguments.ts";
import { newCommand } from "./command.ts";
import { quote, table } from "./layout.ts";
import { printResult } from "./output.ts";
import {
  addModelOptions,
  formatSetting,
  type ModelArguments,
  type Setting,
  settingOf,
  withModel,
} from "./session.ts";
import { addPromptOptions, type PromptArguments, promptText } from "./text-files.ts";
import { formatOrigin, readVectorFile, type VectorFile, vectorsOf } from "./vector-files.ts";

interface Arguments extends ModelArguments, PromptArguments {
  readonly vectors: string;
  readonly layer: number;
  readonly position: number;
  readonly maxNewTokens: number;
}

export interface PatchReport extends Setting {
  readonly prompt: string;
  readonly layer: number;
  /** Of the patched token, counted from the start. */
  readonly position: number;
  readonly token: string;
  readonly vectors: TaskVectorOrigin;
  readonly unpatched: Generated;
  readonly patched: Generated;
}

export function patchCommand(): Command {
  const command = newCommand("patch", "Answer a prompt with and without a task vector put into it", [
    'patch --model ./smollm2 --vectors capital.safetensors --layer 21 --prompt "Q: Italy\\nA:"',
  ]);
  addModelOptions(command)
    .requiredOption("--vectors <file>", "task vectors that xpatch extract wrote")
    .requiredOption("--layer <layer>", "whose vector replaces that layer's activation", wholeNumber(0));
  return addPromptOptions(command)
    .option("--position <n>", "which token is patched", position, -1)
    .option("--max-new-tokens <n>", "most tokens of an answer", wholeNumber(1), 8)
    .action(async (args: Arguments) => {
      const text = await promptText(args, command);
      const file = await readVectorFile(args.vectors);
      const report = await withModel(args, (model) => patch(model, text, file, args));
      printResult(report, args.json, formatPatch);
    });
}

async function patch(
  model: PatchableModel,
  text: string,
  file: VectorFile,
  args: Arguments,
): Promise<PatchReport> {
  const { layer, maxNewTokens } = args;
  using vectors = await vectorsOf(file, model.device);
  const prompt = model.prompt(text);
  const position = prompt.at(args.position);
  const edit = set(`${vectors.origin.site}.${layer}`, position, vectors.at(layer), { prompt: 1 });
  const [unpatched, patched] = await model.generate([prompt, prompt], { edits: [edit], maxNewTokens });
  return {
    ...settingOf(model),
    prompt: text,
    layer,
    position,
    token: prompt.tokens[position]!,
    vectors: vectors.origin,
    unpatched: unpatched!,
    patched: patched!,
  };
}

function formatPatch(report: PatchReport): string {
  const { prompt, layer, position, token, vectors, unpatched, patched } = report;
  const rows = [
    ["prompt", quote(prompt)],
    ["vector", `layer ${layer} of ${formatOrigin(vectors)}`],
    ["patched token", `${position}, ${quote(token)}`],
    ["without the patch", quote(unpatched.text)],
    ["with the patch", quote(patched.text)],
  ];
  return `${formatSetting(report)}\n\n${table(rows)}`;
}
