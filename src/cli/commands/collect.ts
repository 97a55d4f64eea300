import type { Command } from "commander";
import { InvalidArgumentError } from "commander";
import { FolderLock } from "#experiments/index";
import type { ActivationStore } from "../../activations/activation-store.ts";
import {
  type CollectOptions,
  type CollectProgress,
  collectActivations,
  storeSetting,
} from "../../activations/collect.ts";
import {
  FILE_KINDS,
  type FileKind,
  MANIFEST,
  type PlainPositions,
  STORE_DTYPES,
  type StoreDType,
} from "../../activations/manifest.ts";
import { storeToGoOnWith } from "../../activations/store-writer.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type Setting, settingOf, showSetting } from "../../patching/setting.ts";
import type { SitePattern } from "../../patching/site-patterns.ts";
import { taskSource } from "../../tasks/specification.ts";
import { choice, positions, wholeNumber } from "../options/arguments.ts";
import { checkLengths, ofOption } from "../options/checks.ts";
import { newCommand, refuseUnused } from "../options/command.ts";
import { checkFirstPrompts, promptsOfFile } from "../options/prompt-stream.ts";
import { addModelOptions, type ModelArguments, withModel } from "../options/session.ts";
import { readTask } from "../options/task-file.ts";
import {
  addDrawOptions,
  addTaskOptions,
  checkDraw,
  type DrawArguments,
  HOW_TASKS_ARE_SHOWN,
  refuseExamples,
  type TaskArguments,
} from "../options/task-options.ts";
import { stoppable } from "../terminal/interrupt.ts";
import { showCount, table } from "../terminal/layout.ts";
import { note, printResult } from "../terminal/output.ts";
import { paced } from "../terminal/progress.ts";

interface Arguments extends ModelArguments, TaskArguments, DrawArguments {
  readonly prompts?: string;
  readonly sites: readonly string[];
  readonly at: PlainPositions;
  readonly image?: number;
  readonly dtype: StoreDType;
  readonly files: FileKind;
  readonly batchTokens: number;
  readonly shardMib: number;
  readonly out: string;
}

export interface CollectReport extends Setting {
  readonly folder: string;
  readonly sites: readonly { readonly site: string; readonly width: number }[];
  readonly prompts: number;
  /** Prompts that were there before. */
  readonly stored: number;
  /** Of all sites together. */
  readonly rows: number;
  readonly shards: number;
}

/** Seconds between two lines of progress. */
const LINE_SECONDS = 10;

export function collectCommand(): Command {
  const command = addModelOptions(
    newCommand("collect", "Write activations of many prompts into files: an activation store", [
      'collect --model xpatch:smollm2 --prompts lines.txt --sites "resid_post.*" --out acts',
      'collect --prompts pictures.jsonl --sites "vision.resid_post.20,resid_post.12" --at image --out acts',
      "collect --task country-capital --sites resid_post.22 --at -1 --files parquet --out acts",
    ]),
  )
    .requiredOption("--out <folder>", "where they go; what is there of the same run is gone on with")
    .option(
      "--prompts <file>",
      "a prompt a line, or a .jsonl or .parquet with prompt and images (docs/activations.md)",
    )
    .option("--sites <patterns>", "names of sites and patterns, divided by commas", listOfSites, [
      "resid_post.*",
    ])
    .option(
      "--at <positions>",
      "which positions: all, -1, 0,3,5, 2..5, or the name of a span such as image",
      spanOrPositions,
      "all",
    )
    .option(
      "--image <n>",
      "which image's rows, at sites of images, where prompts have several",
      wholeNumber(0),
    )
    .addOption(choice("--dtype <dtype>", "of the vectors", STORE_DTYPES).default("f32"))
    .addOption(choice("--files <kind>", "of the shards", FILE_KINDS).default("safetensors"))
    .option("--batch-tokens <n>", "most tokens of prompts in a pass", wholeNumber(1), 1024)
    .option(
      "--shard-mib <n>",
      "MiB of vectors in a shard, which is what memory is needed for",
      wholeNumber(1),
      64,
    );
  return addDrawOptions(addTaskOptions(command, "train"), 0).action(async (args: Arguments) => {
    if ((args.prompts === undefined) === (args.task === undefined)) {
      command.error("error: expected either --task or --prompts");
    }
    if (args.prompts !== undefined) refuseUnused(command, HOW_TASKS_ARE_SHOWN, "--task");
    refuseExamples(command, args);
    if (args.dtype === "f16" && args.files === "parquet") {
      command.error("error: --dtype f16 goes with --files safetensors only");
    }
    const source = await promptSource(args);
    const report = await stoppable(
      () => "the same command goes on from the last whole shard",
      async () => {
        using _lock = FolderLock.take(args.out);
        return await withModel(
          args,
          async (model) => {
            const setting = await ofOption("--sites", () => storeSetting(model, collectOptions(args)));
            await ofOption("--out", () => storeToGoOnWith(args.out, setting));
            await source.check(model);
          },
          (model) => collect(model, source, args),
        );
      },
    );
    printResult(report, args.json, formatCollection);
  });
}

function collectOptions({
  sites,
  at,
  image,
  dtype,
  files,
  batchTokens,
  shardMib,
}: Arguments): CollectOptions {
  const shardBytes = shardMib * 2 ** 20;
  const shared = { sites: sites as SitePattern[], at, dtype, files, batchTokens, shardBytes };
  return image === undefined ? shared : { ...shared, image };
}

async function collect(model: PatchableModel, source: Source, args: Arguments): Promise<CollectReport> {
  let last: CollectProgress = { prompts: 0, stored: 0, rows: 0 };
  const isDue = paced(LINE_SECONDS);
  const store = await collectActivations(model, source.prompts(model), args.out, {
    ...collectOptions(args),
    onProgress(progress) {
      last = progress;
      if (isDue())
        note(`collecting activations  ${progress.prompts} prompts, ${showCount(progress.rows)} rows`);
    },
  });
  return reportOf(settingOf(model, args.task === undefined ? undefined : args.seed), store, last.stored);
}

function reportOf(setting: Setting, store: ActivationStore, stored: number): CollectReport {
  const { manifest, prompts, rows, name } = store;
  return {
    ...setting,
    folder: name,
    sites: manifest.sites,
    prompts,
    stored,
    rows,
    shards: manifest.shards.length,
  };
}

/** Where prompts come from. */
interface Source {
  /** Throws for what can be seen to be wrong before the weights are read. */
  check(model: ModelOutline): Promise<void>;
  prompts(model: ModelOutline): AsyncIterable<Prompt>;
}

async function promptSource(args: Arguments): Promise<Source> {
  const { prompts: path, task: ref, split, template, spec: kind, shots: count, seed } = args;
  if (ref === undefined) {
    return {
      check: (model) => ofOption("--prompts", () => checkFirstPrompts(path!, model)),
      prompts: (model) => promptsOfFile(path!, model),
    };
  }
  const task = await readTask(ref);
  await checkDraw(task, split, args);
  const made = async (model: ModelOutline) =>
    (await taskSource(model, task, split, { kind, count, seed, template })).prompts;
  return {
    check: async (model) => checkLengths(model, await made(model)),
    async *prompts(model) {
      yield* await made(model);
    },
  };
}

/** `resid_post.*,mlp_out.3` */
function listOfSites(text: string): string[] {
  const sites = text.split(",").map((name) => name.trim());
  if (sites.every((name) => name !== "")) return sites;
  throw new InvalidArgumentError("Expected sites such as resid_post.3 or resid_post.*,mlp_out.3.");
}

/** As `positions`, or the name of a span. */
function spanOrPositions(text: string): PlainPositions {
  if (/^[a-z]\w*$/i.test(text) && text !== "all") return { span: text };
  return positions(text) as PlainPositions;
}

function formatCollection(report: CollectReport): string {
  const { folder, sites, prompts, stored, rows, shards } = report;
  const before = stored > 0 ? `, ${stored} of them from before` : "";
  const lines = [
    ["prompts", `${prompts}${before}`],
    ["sites", sites.map(({ site, width }) => `${site} (${width} wide)`).join(", ")],
    ["rows", `${rows} in ${shards} shard${shards === 1 ? "" : "s"}`],
    ["written to", `${folder}, with ${MANIFEST}`],
  ];
  return `${showSetting(report)}\n\n${table(lines)}`;
}
