import type { Command } from "commander";
import { checkLayers } from "../../analysis/layers.ts";
import type { ControlVector } from "../../analysis/vectors/control-vector.ts";
import type { StoredTaskVectors } from "../../analysis/vectors/task-vectors.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { Edit } from "../../patching/edit.ts";
import type { GenerateOptions } from "../../patching/generate.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { settingOf, showSetting } from "../../patching/setting.ts";
import { batchOf, resolveTarget } from "../../patching/site-targets.ts";
import { listed, positiveNumber, wholeNumber } from "../options/arguments.ts";
import { checkLengths, checkWidth, ofOption } from "../options/checks.ts";
import { newCommand } from "../options/command.ts";
import {
  CONTROL_HELP,
  type ControlArgument,
  controlArgument,
  controlEdits,
  showControl,
} from "../options/control-argument.ts";
import { EDIT_HELP, type EditArgument, editArgument, editOf, showEdit } from "../options/edit-argument.ts";
import { checkImages, IMAGE_OPTION, readImages } from "../options/image-prompt.ts";
import { addModelOptions, type ModelArguments, withModel } from "../options/session.ts";
import { addPromptOptions, type PromptArguments, promptText } from "../options/text-files.ts";
import { readControlFile, readVectorsToEdit } from "../options/vector-files.ts";
import { note, printResult } from "../terminal/output.ts";
import { withProgress } from "../terminal/progress.ts";

interface Arguments extends ModelArguments, PromptArguments {
  readonly maxNewTokens: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed: number;
  readonly chat?: boolean;
  readonly edit?: readonly EditArgument[];
  readonly control?: readonly ControlArgument[];
  readonly image?: readonly string[];
}

export function generateCommand(): Command {
  const command = newCommand("generate", "Continue a prompt, token by token", [
    'generate --image flag.png --prompt "Q:<image>\\nA:" --max-new-tokens 6',
    'generate --model xpatch:smollm2 --chat --prompt "What is a task vector?" --temperature 0.7 --seed 3',
    'generate --model HuggingFaceTB/SmolLM2-135M-Instruct --prompt "The capital of France is" --max-new-tokens 8',
    'generate --model xpatch:smollm2 --prompt "Q: Italy\\nA:" --edit set:resid_post.21@-1=capital.safetensors',
  ]);
  return addPromptOptions(addModelOptions(command))
    .option(...IMAGE_OPTION, listed)
    .option("--chat", "the prompt is a user's message: put it through the checkpoint's chat template")
    .option("--max-new-tokens <n>", "most tokens to add", wholeNumber(1), 64)
    .option(
      "--temperature <t>",
      "sample with this softmax temperature (default: the most probable token)",
      positiveNumber(),
    )
    .option("--top-k <k>", "sample from the k most probable tokens only", wholeNumber(1))
    .option(
      "--top-p <p>",
      "sample from the most probable tokens that make up this probability only",
      positiveNumber(1),
    )
    .option("--seed <n>", "seed of the sampling", wholeNumber(0), 0)
    .option("--edit <edit>", EDIT_HELP, editArgument)
    .option("--control <vector>", CONTROL_HELP, controlArgument)
    .action(async (args: Arguments) => {
      const { temperature, topK, topP } = args;
      if (temperature === undefined && (topK ?? topP) !== undefined) {
        command.error(
          "error: --top-k and --top-p need a --temperature; without one the most probable token is taken",
        );
      }
      const text = await promptText(args, command);
      const edits = await Promise.all((args.edit ?? []).map(readEdit));
      const controls = await Promise.all((args.control ?? []).map(readControl));
      const images = await readImages(args.image);
      await withModel(
        args,
        (model) => prepare(model, text, images, { edits, controls }, args),
        (model, prompt) => generate(model, prompt, { edits, controls }, args),
      );
    });
}

/** An edit of the command line with its argument, and its vectors if it has any. */
interface ReadEdit {
  readonly argument: EditArgument;
  readonly edit: Edit;
  readonly vectors: StoredTaskVectors | ControlVector | undefined;
}

interface ReadControl {
  readonly argument: ControlArgument;
  readonly vector: ControlVector;
}

interface Changes {
  readonly edits: readonly ReadEdit[];
  readonly controls: readonly ReadControl[];
}

function readEdit(argument: EditArgument): Promise<ReadEdit> {
  return ofOption(`--edit ${argument.text}`, async () => {
    const vectors = argument.file === undefined ? undefined : await readVectorsToEdit(argument.file);
    return { argument, edit: editOf(argument, vectors), vectors };
  });
}

function readControl(argument: ControlArgument): Promise<ReadControl> {
  return ofOption(`--control ${argument.text}`, async () => {
    const vector = await readControlFile(argument.file);
    for (const layer of argument.layers ?? []) vector.at(layer);
    return { argument, vector };
  });
}

/** The prompt, checked together with the edits. */
async function prepare(
  model: ModelOutline,
  text: string,
  images: readonly RgbImage[],
  { edits, controls }: Changes,
  args: Arguments,
): Promise<Prompt> {
  await checkImages(model, images);
  const prompt = args.chat ? chatPrompt(model, text, images) : model.prompt(text, { images });
  // The last new token is never computed.
  const newTokens = args.maxNewTokens - 1;
  checkLengths(model, [prompt], newTokens);
  for (const { argument, edit, vectors } of edits) {
    await ofOption(`--edit ${argument.text}`, () => {
      resolveTarget(
        edit.operation,
        edit,
        model.sites,
        batchOf([model.sequenceOf(prompt)], model.config.vision),
        {
          members: [0],
          newTokens,
        },
      );
      if (vectors) checkWidth(model, edit.site, vectors);
    });
  }
  for (const { argument, vector } of controls) {
    await ofOption(`--control ${argument.text}`, () => {
      checkLayers(model, argument.layers ?? vector.layers, "its layers", "resid_post");
      checkWidth(model, `resid_post.${vector.layers[0]!}`, vector);
    });
  }
  return prompt;
}

async function generate(
  model: PatchableModel,
  prompt: Prompt,
  { edits, controls }: Changes,
  args: Arguments,
): Promise<void> {
  const { maxNewTokens, temperature, topK, topP, seed, json } = args;
  const added = controls.flatMap(({ argument, vector }) =>
    controlEdits(argument, vector, model.sequenceOf(prompt).length + maxNewTokens - 1),
  );
  const started = performance.now();
  const generated = (onToken: GenerateOptions["onToken"]) =>
    model.generate(prompt, {
      maxNewTokens,
      temperature,
      topK,
      topP,
      seed,
      edits: [...edits.map(({ edit }) => edit), ...added],
      onToken,
    });
  const whole = json
    ? await withProgress("generating", (update) => {
        let tokens = 0;
        return generated(() => update(++tokens, maxNewTokens));
      })
    : await generated(({ text }) => void process.stdout.write(text));
  const seconds = (performance.now() - started) / 1000;
  // A control vector is added as far as the answer goes.
  const answer = { ...whole, unfired: whole.unfired.filter(({ edit }) => edit < edits.length) };
  const setting = settingOf(model, seed);
  const described = [
    ...edits.map(({ argument }) => showEdit(argument)),
    ...controls.map(({ argument }) => showControl(argument)),
  ];
  const result = { ...setting, edits: described, prompt: promptReport(prompt), answer, seconds };
  // The text has been streamed.
  printResult(result, json, () => "");
  note(
    [
      showSetting(setting),
      ...described,
      ...answer.unfired.map(
        ({ label, positions }) => `the answer ended before position ${positions[0]}: ${label}`,
      ),
      `${prompt.length} + ${answer.ids.length} tokens in ${seconds.toFixed(2)} s` +
        (answer.ended ? "" : `, stopped by --max-new-tokens ${maxNewTokens}`),
    ].join("\n"),
  );
}

/** A user's message: its pictures, then its text. */
function chatPrompt(model: ModelOutline, text: string, images: readonly RgbImage[]): Prompt {
  const pictures = images.map((image) => ({ type: "image" as const, image }));
  // Templates of models that take pictures may read pieces only (SmolVLM).
  const content = model.config.vision ? [...pictures, { type: "text" as const, text }] : text;
  return model.chat([{ role: "user", content }]);
}

function promptReport({ text, ids, tokens }: Prompt) {
  return { text, ids, tokens };
}
