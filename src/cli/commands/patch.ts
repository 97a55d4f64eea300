import type { Command } from "commander";
import { patchOf } from "../../analysis/vectors/sweep-layers.ts";
import type { TaskVectorOrigin } from "../../analysis/vectors/task-vectors.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { answerEach } from "../../patching/answer.ts";
import type { Generated } from "../../patching/generate.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type Setting, settingOf, showSetting } from "../../patching/setting.ts";
import { fewShotPrompt, type Question } from "../../tasks/few-shot.ts";
import { type Modality, poolOf, promptInContext, specify } from "../../tasks/specification.ts";
import { listed, position, wholeNumber } from "../options/arguments.ts";
import { checkLengths, ofOption, sequenceAt } from "../options/checks.ts";
import { newCommand, refuseUnused } from "../options/command.ts";
import { checkImages, IMAGE_OPTION, readImages } from "../options/image-prompt.ts";
import { addModelOptions, type ModelArguments, withModel } from "../options/session.ts";
import { readTask } from "../options/task-file.ts";
import {
  addDrawOptions,
  addStackOption,
  addTaskOptions,
  checkDraw,
  checkStack,
  type DrawArguments,
  HOW_TASKS_ARE_SHOWN,
  refuseExamples,
  type StackArguments,
  streamOf,
  type TaskArguments,
} from "../options/task-options.ts";
import { addPromptOptions, type PromptArguments, promptText } from "../options/text-files.ts";
import { formatOrigin, readVectorFile } from "../options/vector-files.ts";
import { quote, table } from "../terminal/layout.ts";
import { printResult } from "../terminal/output.ts";
import {
  type LayerOrigin,
  type PatchSource,
  type PreparedSource,
  prepareSource,
  showLayerOrigin,
  siteOf,
  vectorsFor,
} from "./patch-vectors.ts";

interface Arguments extends ModelArguments, PromptArguments, TaskArguments, DrawArguments, StackArguments {
  readonly vectors?: string;
  readonly question?: string;
  readonly image?: readonly string[];
  readonly layer?: number;
  readonly position: number;
  readonly maxNewTokens: number;
}

export interface PatchReport extends Setting {
  readonly prompt: string;
  readonly images: readonly string[];
  readonly layer: number;
  readonly layerOrigin: LayerOrigin;
  /** Of the patched token, counted from the start. */
  readonly position: number;
  readonly token: string;
  readonly vectors: TaskVectorOrigin;
  readonly unpatched: Generated;
  readonly patched: Generated;
  /** For questions about a task: the question behind what tells the task, and the answer to that. */
  readonly inContext?: { readonly prompt: string; readonly answer: Generated };
}

/** A prompt as it is, or a question for the task's template. */
type Asked = { readonly prompt: string } | { readonly name: string };

export function patchCommand(): Command {
  const command = newCommand("patch", "Answer a question with and without a task vector put into it", [
    "patch --task country-capital --image flag.png",
    "patch --task country-capital --spec instruction --question Italy",
    'patch --model xpatch:smollm2 --vectors capital.safetensors --layer 21 --prompt "Q: Italy\\nA:"',
  ]);
  addModelOptions(command)
    .option("--vectors <file>", "instead of a task: vectors that xpatch extract wrote")
    .option("--question <text>", "asks about that, by the template")
    .option(...IMAGE_OPTION, listed)
    .option(
      "--layer <layer>",
      "whose vector replaces that layer's activation (default: the layer that the model names, else the best on " +
        "validation items)",
      wholeNumber(0),
    );
  return addPromptOptions(addStackOption(addDrawOptions(addTaskOptions(command, "train"))))
    .option("--position <n>", "which token is patched", position, -1)
    .option("--max-new-tokens <n>", "most tokens of an answer", wholeNumber(1), 8)
    .action(async (args: Arguments) => {
      const asked = await readQuestion(args, command);
      const source = await readSource(args, asked, command);
      const pictures = await readImages(args.image);
      const report = await withModel(
        args,
        (model) => prepare(model, asked, pictures, source, args),
        (model, prepared) => patch(model, prepared, args),
      );
      printResult(report, args.json, formatPatch);
    });
}

/** What is asked. Anything but one prompt, one question, or one picture by itself is a usage error. */
async function readQuestion(args: Arguments, command: Command): Promise<Asked> {
  const { prompt, promptFile, question, image = [] } = args;
  const hasPrompt = prompt !== undefined || promptFile !== undefined;
  if (!hasPrompt && (question === undefined) === (image.length === 0)) {
    command.error("error: expected --prompt, --prompt-file, --question or an --image to ask about");
  }
  if (hasPrompt && question !== undefined) command.error("error: expected either a prompt or --question");
  if (!hasPrompt && image.length > 1) {
    command.error(
      `error: expected one --image to ask about, found ${image.length}; a --prompt takes several`,
    );
  }
  return hasPrompt ? { prompt: await promptText(args, command) } : { name: question ?? image[0]! };
}

/** Where the vector comes from. Anything but a task or a file of vectors is a usage error. */
async function readSource(args: Arguments, asked: Asked, command: Command): Promise<PatchSource> {
  const { vectors, task, split, layer, template, spec: kind, shots: count, seed } = args;
  if ((vectors === undefined) === (task === undefined)) {
    command.error("error: expected either --task or --vectors");
  }
  refuseExamples(command, args);
  if (task === undefined) {
    // A question is asked by the template.
    const unused = HOW_TASKS_ARE_SHOWN.filter((name) => name !== "template" || "prompt" in asked);
    refuseUnused(command, [...unused, "stack"], "--task");
    const file = await ofOption("--vectors", () => readVectorFile(vectors!));
    if (layer !== undefined) await ofOption("--layer", () => file.at(layer));
    return { kind: "file", file };
  }
  const read = await readTask(task);
  await checkDraw(read, split, args);
  return { kind: "task", task: read, split, given: { kind, count, seed, template }, site: streamOf(args) };
}

interface Prepared {
  readonly source: PreparedSource;
  readonly modality: Modality;
  readonly query: Prompt;
  /** Of the patched token, counted from the start. */
  readonly position: number;
  readonly token: string;
  /** The question behind what tells the task. */
  readonly context?: Prompt;
}

/** The prompts, checked together with the vectors that are to be patched into them. */
async function prepare(
  model: ModelOutline,
  asked: Asked,
  pictures: readonly RgbImage[],
  source: PatchSource,
  args: Arguments,
): Promise<Prepared> {
  const { template, maxNewTokens } = args;
  await checkImages(model, pictures);
  await checkStack(model, args);
  const modality = pictures.length > 0 ? "image" : "text";
  const prepared = await prepareSource(model, source, args.layer, modality);
  const question: Question | undefined = "name" in asked ? (pictures[0] ?? asked.name) : undefined;
  const query =
    "prompt" in asked
      ? model.prompt(asked.prompt, { images: pictures })
      : fewShotPrompt(model, [], question!, template);
  const sequence = await ofOption("--vectors", () => sequenceAt(model, siteOf(source), query));
  const position = await ofOption("--position", () => sequence.at(args.position));
  const context =
    "name" in asked && source.kind === "task"
      ? await contextOf(model, source, asked.name, question!)
      : undefined;
  // The last new token is never computed.
  checkLengths(model, [query, ...(context ? [context] : [])], maxNewTokens - 1);
  const token = sequence.tokens[position]!;
  return { source: prepared, modality, query, position, token, ...(context && { context }) };
}

async function patch(
  model: PatchableModel,
  { source, modality, query, position, token, context }: Prepared,
  args: Arguments,
): Promise<PatchReport> {
  const { image: images = [], maxNewTokens } = args;
  const { layer, layerOrigin, ...chosen } = await vectorsFor(model, source, args.layer, modality);
  using vectors = chosen.vectors;

  const edits = [[], [patchOf(vectors, layer, position)]];
  const [unpatched, patched] = await answerEach(model, [query], edits, maxNewTokens);
  return {
    ...settingOf(model, source.kind === "task" ? args.seed : undefined),
    prompt: query.text,
    images,
    layer,
    layerOrigin,
    position,
    token,
    vectors: vectors.origin,
    unpatched: unpatched![0]!,
    patched: patched![0]!,
    ...(context && {
      inContext: { prompt: context.text, answer: await model.generate(context, { maxNewTokens }) },
    }),
  };
}

/** The question behind the task's examples or instruction. */
async function contextOf(
  model: ModelOutline,
  { task, split, given }: PatchSource & { kind: "task" },
  input: string,
  question: Question,
): Promise<Prompt> {
  const pool = poolOf(given.kind, task, split);
  return promptInContext(model, await specify(model, task, pool, given), pool, { input }, question);
}

function formatPatch(report: PatchReport): string {
  const { prompt, images, layer, layerOrigin, position, token, vectors, inContext } = report;
  const rows = [
    ["query", [quote(prompt), ...images].join(", ")],
    ["vector", formatOrigin(vectors)],
    ["layer", `${layer}, ${showLayerOrigin(layerOrigin)}`],
    ["patched token", `${position}, ${quote(token)}`],
  ];
  if (!inContext) {
    rows.push(["without the patch", quote(report.unpatched.text)]);
    rows.push(["with the patch", quote(report.patched.text)]);
    return `${showSetting(report)}\n\n${table(rows)}`;
  }
  const answers = [
    ["no context", quote(report.unpatched.text)],
    ["prompt", quote(inContext.answer.text)],
    ["patch", quote(report.patched.text)],
  ];
  rows.push(["prompt", quote(inContext.prompt)]);
  return `${showSetting(report)}\n\n${table(rows)}\n\n${table(answers)}`;
}
