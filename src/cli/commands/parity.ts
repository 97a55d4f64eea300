import { fileURLToPath } from "node:url";
import { type Command, Option } from "commander";
import { XpatchError } from "../../errors.ts";
import type { ShippedModel } from "../../model/checkpoint/source/shipped-models.ts";
import { AUTHORS_RULES } from "../../parity/authors.ts";
import { checkFolder } from "../../parity/check-folder.ts";
import { checkReal, readReal } from "../../parity/real-model.ts";
import type { ParityResult } from "../../parity/report.ts";
import { openDevice } from "../../tensor/open-device.ts";
import { choice } from "../options/arguments.ts";
import { ofOption } from "../options/checks.ts";
import { newCommand } from "../options/command.ts";
import { addStoredModelOptions, withModel } from "../options/session.ts";
import { formatAuthors } from "../terminal/authors-text.ts";
import { printResult } from "../terminal/output.ts";
import { formatParity } from "../terminal/parity-text.ts";
import { withProgress } from "../terminal/progress.ts";
import { type AuthorsArguments, checkAuthors } from "./authors-check.ts";

interface Arguments extends AuthorsArguments {
  readonly real?: string;
  readonly authors?: string;
}

/** What the goldens of test/fixtures/real were made of. */
const MODEL_OF_REAL: ShippedModel = "xpatch:smollm2";

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
      choice(
        "--weights <how>",
        "weights for --authors: exported to f32 first, or as stored",
        Object.keys(AUTHORS_RULES),
      ).default("f32"),
    );
  addStoredModelOptions(command);
  command.options.find(({ long }) => long === "--model")!.description +=
    `; with --real by default ${MODEL_OF_REAL}, which the goldens that come along are of`;
  return command.action(async (folders: string[], args: Arguments) => {
    const { real, authors, lora, base } = args;
    const isGiven = (name: string) => command.getOptionValueSource(name) === "cli";
    const given = [folders.length > 0, real !== undefined, authors !== undefined];
    if (given.filter(Boolean).length !== 1) {
      return command.error("error: expected one of case folders, --real and --authors");
    }
    if (folders.length > 0 && (isGiven("model") || lora || base)) {
      return command.error("error: --model, --lora and --base go with --real and --authors only");
    }
    if (!authors && ["pictures", "weights"].some(isGiven)) {
      return command.error("error: --pictures and --weights go with --authors only");
    }
    if (authors) {
      const report = await checkAuthors(authors, args);
      printResult(report, args.json, formatAuthors);
      if (!report.passed) process.exitCode = 1;
      return;
    }
    const results = real
      ? [await checkAgainst(real, isGiven("model") ? args : { ...args, model: MODEL_OF_REAL })]
      : await checkFolders(folders, args);
    printResult(results, args.json, formatParity);
    if (!results.every(({ passed }) => passed)) process.exitCode = 1;
  });
}

async function checkAgainst(real: string, args: Arguments): Promise<ParityResult> {
  const read = await ofOption("--real", () => readReal(real));
  await using _ = read.goldens;
  return await withModel(
    args,
    () => read,
    (model) => withProgress("comparing", (update) => checkReal(read, model, update)),
  );
}

/** A folder that cannot be run is a failure of its own and keeps nobody from the others. */
async function checkFolders(folders: readonly string[], { adapter }: Arguments): Promise<ParityResult[]> {
  await using device = await openDevice({ adapter });
  return await withProgress("comparing", async (update) => {
    const results: ParityResult[] = [];
    for (const folder of folders) {
      try {
        results.push(await checkFolder(folder, device));
      } catch (error) {
        if (!(error instanceof XpatchError)) throw error;
        results.push({ goldens: folder, error: error.message, passed: false });
      }
      update(results.length, folders.length);
    }
    return results;
  });
}
