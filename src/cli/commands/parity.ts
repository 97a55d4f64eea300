import { fileURLToPath } from "node:url";
import { type Command, Option } from "commander";
import { XpatchError } from "../../errors.ts";
import { AUTHORS_RULES } from "../../parity/authors.ts";
import { checkFolder } from "../../parity/check-folder.ts";
import { checkReal, readReal } from "../../parity/real-model.ts";
import type { ParityResult } from "../../parity/report.ts";
import { cachedModel } from "../../platform/node-cache.ts";
import { openDevice } from "../../tensor/device.ts";
import { newCommand } from "../options/command.ts";
import { addModelOptions, shippedModel, withModel } from "../options/session.ts";
import { formatAuthors } from "../terminal/authors-text.ts";
import { printResult } from "../terminal/output.ts";
import { formatParity } from "../terminal/parity-text.ts";
import { type AuthorsArguments, checkAuthors } from "./authors-check.ts";

interface Arguments extends AuthorsArguments {
  readonly real?: string;
  readonly authors?: string;
}

/** Where the pictures of the tasks that come along are. */
const PICTURES = fileURLToPath(new URL("../../../tasks", import.meta.url));

export function parityCommand(): Command {
  const command = newCommand(
    "parity",
    "Compare with what Hugging Face transformers or the paper's program computed",
    [
      "parity fixtures/llama fixtures/mistral",
      "parity --real fixtures/real/smollm2.json",
      "parity --authors fixtures/authors",
    ],
  );
  command
    .argument("[folders...]", "folders with case.json, golden.safetensors and a checkpoint")
    .option("--real <json>", "a real model's goldens instead, with a .golden.safetensors beside them")
    .option("--authors <folder>", "answers of the paper's own program instead (docs/experiments.md)")
    .addOption(
      new Option("--pictures <folder>", "where the pictures of --authors are").default(PICTURES, "tasks/"),
    )
    .addOption(
      new Option("--weights <how>", "weights for --authors: exported to f32 first, or as stored")
        .choices(Object.keys(AUTHORS_RULES))
        .default("f32"),
    );
  addModelOptions(command, cachedModel("smollm2-135m-instruct"));
  command.options.find(({ long }) => long === "--model")!.description +=
    "; for --authors by default xpatch's own";
  return command.action(async (folders: string[], args: Arguments) => {
    const { real, authors, lora, base } = args;
    const given = [folders.length > 0, real !== undefined, authors !== undefined];
    if (given.filter(Boolean).length !== 1) {
      return command.error("error: expected one of case folders, --real and --authors");
    }
    const isGiven = (name: string) => command.getOptionValueSource(name) === "cli";
    if (folders.length > 0 && (lora || base)) {
      return command.error("error: --lora and --base go with --real and --authors only");
    }
    if (!authors && ["pictures", "weights"].some(isGiven)) {
      return command.error("error: --pictures and --weights go with --authors only");
    }
    if (authors) {
      const model = isGiven("model") ? args.model : shippedModel();
      const report = await checkAuthors(authors, { ...args, model });
      printResult(report, args.json, formatAuthors);
      if (!report.passed) process.exitCode = 1;
      return;
    }
    const results = real
      ? [
          await withModel(
            args,
            () => readReal(real),
            (model, goldens) => checkReal(goldens, model),
          ),
        ]
      : await checkFolders(folders, args);
    printResult(results, args.json, formatParity);
    if (!results.every(({ passed }) => passed)) process.exitCode = 1;
  });
}

/** A folder that cannot be run is a failure of its own and keeps nobody from the others. */
async function checkFolders(folders: readonly string[], { adapter }: Arguments): Promise<ParityResult[]> {
  await using device = await openDevice({ adapter });
  const results: ParityResult[] = [];
  for (const folder of folders) {
    try {
      results.push(await checkFolder(folder, device));
    } catch (error) {
      if (!(error instanceof XpatchError)) throw error;
      results.push({ goldens: folder, error: error.message, passed: false });
    }
  }
  return results;
}
