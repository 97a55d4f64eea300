import type { Command } from "commander";
import type { RgbImage } from "../../images/files/rgb.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { type Setting, settingOf, showSetting } from "../../patching/setting.ts";
import { writeWhole } from "../../platform/node-write.ts";
import { chromeTrace } from "../../profile/chrome-trace.ts";
import { type Profile, profile } from "../../profile/profile.ts";
import { listed, wholeNumber } from "../options/arguments.ts";
import { checkLengths, checkWritable } from "../options/checks.ts";
import { newCommand } from "../options/command.ts";
import { checkImages, IMAGE_OPTION, readImages } from "../options/image-prompt.ts";
import { addModelOptions, type ModelArguments, withModel } from "../options/session.ts";
import { addPromptOptions, type PromptArguments, promptText } from "../options/text-files.ts";
import { printResult } from "../terminal/output.ts";
import { formatProfile } from "./profile-text.ts";

interface Arguments extends ModelArguments, PromptArguments {
  readonly image?: readonly string[];
  readonly maxNewTokens: number;
  readonly rounds: number;
  readonly trace?: string;
}

/** Everything of a profile but the single dispatches, which are in the trace. */
export interface ProfileReport extends Setting, Omit<Profile, "adapter" | "dispatches"> {
  readonly prompt: string;
  readonly promptTokens: number;
  readonly trace?: string;
}

export function profileCommand(): Command {
  const command = newCommand(
    "profile",
    "Where the time of a prompt and of new tokens goes, by kernel and by layer",
    [
      'profile --model xpatch:smollm2 --prompt "The capital of France is"',
      'profile --image flag.png --prompt "Q:<image>\\nA:" --trace trace.json',
    ],
  );
  return addPromptOptions(addModelOptions(command))
    .option(...IMAGE_OPTION, listed)
    .option(
      "--max-new-tokens <n>",
      "tokens to generate; all but the first are the decoding",
      wholeNumber(1),
      5,
    )
    .option("--rounds <n>", "how often to profile; the fastest counts", wholeNumber(1), 2)
    .option("--trace <file>", "write every dispatch as a Chrome trace, for chrome://tracing or Perfetto")
    .action(async (args: Arguments) => {
      if (args.trace !== undefined) await checkWritable("--trace", args.trace);
      const text = await promptText(args, command);
      const images = await readImages(args.image);
      await withModel(
        args,
        (model) => prepare(model, text, images, args),
        async (model, prompt) => {
          const { maxNewTokens, rounds, trace, json } = args;
          const found = await profile(model, prompt, { maxNewTokens, rounds });
          if (trace !== undefined) await writeWhole(trace, `${JSON.stringify(chromeTrace(found))}\n`);
          const { adapter: _, dispatches: __, ...rest } = found;
          const report: ProfileReport = {
            ...settingOf(model),
            prompt: prompt.text,
            promptTokens: prompt.length,
            ...rest,
            ...(trace !== undefined && { trace }),
          };
          printResult(report, json, () => format(report, found));
        },
        // Browsers and Dawn otherwise round timestamps.
        { toggles: ["-timestamp_quantization"] },
      );
    });
}

async function prepare(
  model: ModelOutline,
  text: string,
  images: readonly RgbImage[],
  { maxNewTokens }: Arguments,
): Promise<Prompt> {
  await checkImages(model, images);
  const prompt = model.prompt(text, { images });
  checkLengths(model, [prompt], maxNewTokens - 1);
  return prompt;
}

function format(report: ProfileReport, found: Profile): string {
  const written = report.trace === undefined ? [] : ["", `written to ${report.trace}`];
  return [
    showSetting(report),
    `${report.promptTokens} tokens of prompt`,
    formatProfile(found),
    ...written,
  ].join("\n");
}
