import { basename, dirname, resolve } from "node:path";
import { PromptError, SHIPPED_TASKS, type SpecificationKind, XpatchError } from "xpatch";
import { readTextFile } from "#src/platform/node-text";
import { checkTemplate } from "#src/tasks/few-shot";
import { SPECIFICATION_KINDS } from "#src/tasks/specification";
import { type GivenOptions, OPTION_DEFAULTS, SET_BY_PROTOCOL } from "../framework/lab-options.ts";
import { EXPERIMENTS } from "../index.ts";
import { PAPER_TASKS } from "../paper.ts";
import type { GridPlan, PlanEntry, PlanModel } from "./plan.ts";
import { type PlanNode, parseNodes } from "./plan-nodes.ts";

const FIELDS = ["models", "tasks", "experiments", "specifications", "seeds", "options"] as const;
const MODEL_FIELDS = ["model", "llm", "lora", "base", "intermediate-layers", "label"] as const;

/** Files beside the folders of runs. */
const TAKEN = ["grid.json", "summary.csv", "lock"];

/** Options of which a list is several runs, in the order of their combinations. */
const VARIED = {
  "prompt-seeds": ["promptSeeds", (node) => node.wholeNumber(1)],
  shots: ["shots", (node) => node.wholeNumber(2)],
  template: ["template", templateOf],
  "validation-items": ["validationItems", (node) => node.wholeNumber(1)],
  "test-items": ["testItems", (node) => node.wholeNumber(1)],
  "picture-width": ["pictureWidth", (node) => node.wholeNumber(1)],
  "layer-by": ["layerBy", (node) => node.oneOf(["mean", "task"])],
  stack: ["stack", (node) => node.oneOf(["decoder", "encoder"])],
} as const satisfies Record<string, readonly [keyof GivenOptions, (node: PlanNode) => unknown]>;

type Varied = keyof typeof VARIED;
const VARIED_NAMES = Object.keys(VARIED) as Varied[];

/** Options of an experiment, given beside its name. */
const OWN_OPTIONS: Readonly<Record<string, Readonly<Record<string, readonly [keyof GivenOptions, number]>>>> =
  {
    "fine-tuning": {
      "train-tasks": ["trainTasks", 1],
      "train-seeds": ["trainSeeds", 1],
      "train-steps": ["trainSteps", 4],
    },
  };

/** The fields of a plan's `options` and of its experiments, for the test that none of the command line's is missing. */
export const PLAN_OPTIONS: readonly string[] = [
  ...VARIED_NAMES,
  "outside-means",
  "protocol",
  ...Object.values(OWN_OPTIONS).flatMap((own) => Object.keys(own)),
];

/** Of what cannot be computed on many machines. */
const NOT_IN_GRIDS: Readonly<Record<string, string>> = {
  efficiency: "its cells are the time and memory of the machine that computes them, which a grid has many of",
};

/** Reads a plan: YAML or JSON. Throws XpatchError with file, line and field for what is wrong in it. */
export async function readPlan(path: string): Promise<GridPlan> {
  return parsePlan(await readTextFile(path), path);
}

export function parsePlan(text: string, path: string): GridPlan {
  const fields = parseNodes(text, path).fields(FIELDS, `a mapping with ${FIELDS.join(", ")}`);
  const { models, experiments } = fields;
  if (!models) throw new XpatchError(`${path}: expected a list "models", found none`);
  if (!experiments) throw new XpatchError(`${path}: expected a list "experiments", found none`);
  const own = ownOptions(experiments);
  const common = {
    ...(fields.seeds && { seeds: fields.seeds.wholeNumber(1) }),
    ...(fields.specifications && { specifications: specificationsOf(fields.specifications) }),
    ...own.options,
  };
  return {
    folder: resolve(dirname(path)),
    models: modelsOf(models),
    tasks: tasksOf(fields.tasks, path),
    experiments: own.names,
    variants: variantsOf(fields.options, common, path, fields.seeds),
  };
}

function modelsOf(node: PlanNode): PlanEntry<PlanModel>[] {
  const entries = node.items("a list of models").map((item): PlanEntry<PlanModel> => {
    const value: { model: PlanModel; label?: string } = item.isMap
      ? modelOf(item)
      : { model: { model: item.text("a model: a folder, a URL, a hub id or a name") } };
    return { where: item.where, value: value.model, label: value.label ?? labelOf(value.model.model) };
  });
  // Some file systems do not tell capitals from small letters.
  const folders = entries.map(({ label }) => label.toLowerCase());
  for (const [i, { label, where }] of entries.entries()) {
    if (folders.indexOf(folders[i]!) < i) {
      throw new XpatchError(`${where}: two models are called "${label}"; give one of them another "label"`);
    }
    if (TAKEN.includes(folders[i]!)) {
      throw new XpatchError(`${where}: a file of the results is called "${label}"; give it another "label"`);
    }
  }
  return entries;
}

function modelOf(node: PlanNode): { model: PlanModel; label?: string } {
  const { label, model, ...given } = node.fields(MODEL_FIELDS, "a model");
  if (!model) node.refuse('a field "model"', "none");
  const list = (item: PlanNode) => (item.isList ? item.items("adapters").map(text) : [text(item)]);
  const text = (item: PlanNode) => item.text("a folder, a URL, a hub id or a name");
  return {
    model: {
      model: text(model),
      ...(given.llm && { llm: text(given.llm) }),
      ...(given.lora && { lora: list(given.lora) }),
      ...(given.base && { base: text(given.base) }),
      ...(given["intermediate-layers"] && {
        intermediateLayers: given["intermediate-layers"].oneOf(["inputs", "outputs"] as const),
      }),
    },
    ...(label && { label: folderName(label) }),
  };
}

/** A name of a folder, in the folder of all results. */
function folderName(node: PlanNode): string {
  const label = node.text("a name for a folder");
  return /^[\w][\w.+ -]*$/.test(label) ? label : node.refuse("a name of letters, digits, spaces and . + - _");
}

/** `xpatch:vlm` → vlm, `llava-hf/llava-1.5-7b-hf` → llava-1.5-7b-hf */
function labelOf(ref: string): string {
  const name = basename(ref.replace(/[\\/]+$/, "")).replace(/^xpatch:/, "");
  return name.replaceAll(/[^\w.+-]+/g, "-").replace(/^[^\w]+/, "") || "model";
}

function tasksOf(node: PlanNode | undefined, path: string): PlanEntry<string>[] {
  if (!node) return PAPER_TASKS.map((task) => ({ label: task, value: task, where: `${path}: tasks` }));
  const known: readonly string[] = SHIPPED_TASKS;
  const entries = node.items("a list of tasks").map((item) => {
    const ref = item.text("the name of a task, or a .json or .csv file");
    if (!/\.(json|csv)$/i.test(ref) && !known.includes(ref)) item.oneOf(known);
    return { label: ref, value: ref, where: item.where };
  });
  refuseTwice(entries);
  return entries;
}

function refuseTwice(entries: readonly PlanEntry<string>[]): void {
  const values = entries.map(({ value }) => value);
  const twice = entries.find(({ value }, i) => values.indexOf(value) < i);
  if (twice) throw new XpatchError(`${twice.where}: ${twice.value} stands there twice`);
}

function ownOptions(node: PlanNode): { names: string[]; options: Partial<GivenOptions> } {
  const known = EXPERIMENTS.map(({ name }) => name);
  const options: Record<string, unknown> = {};
  const entries = node.items("a list of experiments").map((item) => {
    const own = item.isMap ? OWN_OPTIONS[nameIn(item)] : undefined;
    const fields = item.isMap ? item.fields(["name", ...Object.keys(own ?? {})], "an experiment") : {};
    const name = (fields["name"] ?? item).oneOf(known);
    if (NOT_IN_GRIDS[name]) {
      throw new XpatchError(
        `${item.where}: ${name} cannot be part of a grid: ${NOT_IN_GRIDS[name]}; "xpatch experiment ${name}" runs it`,
      );
    }
    for (const [field, [option, from]] of Object.entries(own ?? {})) {
      if (fields[field]) options[option] = fields[field].wholeNumber(from);
    }
    return { label: name, value: name, where: item.where };
  });
  refuseTwice(entries);
  return { names: entries.map(({ value }) => value), options };
}

/** The name of an experiment that is given with options, before these are looked at. */
function nameIn(item: PlanNode): string {
  const every = Object.values(OWN_OPTIONS).flatMap((own) => Object.keys(own));
  const { name } = item.fields(["name", ...every], "an experiment");
  return (name ?? item.refuse('a field "name"', "none")).oneOf(EXPERIMENTS.map((one) => one.name));
}

/** Claims rest on text examples, so that these are always among them. */
function specificationsOf(node: PlanNode): SpecificationKind[] {
  const given = node.items("a list of specifications").map((item) => item.oneOf(SPECIFICATION_KINDS));
  if (!given.includes("text")) node.refuse("text among them, which claims rest on", given.join(", "));
  return SPECIFICATION_KINDS.filter((kind) => given.includes(kind));
}

function templateOf(node: PlanNode): string {
  const template = node.text("a template");
  try {
    checkTemplate(template);
  } catch (error) {
    if (error instanceof PromptError)
      throw new XpatchError(`${node.where}: ${error.message}`, { cause: error });
    throw error;
  }
  return template;
}

function variantsOf(
  node: PlanNode | undefined,
  common: Partial<GivenOptions>,
  path: string,
  seeds: PlanNode | undefined,
): PlanEntry<GivenOptions>[] {
  const fields = node?.fields([...VARIED_NAMES, "outside-means", "protocol"], "a mapping of options") ?? {};
  if (fields.protocol) {
    fields.protocol.oneOf(["paper"]);
    const set: readonly string[] = SET_BY_PROTOCOL;
    const beside = VARIED_NAMES.filter((name) => set.includes(VARIED[name][0])).map((name) => fields[name]);
    const other = [seeds, fields["outside-means"], ...beside].find((one) => one !== undefined);
    if (other)
      throw new XpatchError(
        `${other.where}: the paper's protocol sets this, so that it cannot be given beside it`,
      );
  }
  let variants: { label: string; options: Partial<GivenOptions> }[] = [
    {
      label: "",
      options: {
        ...common,
        ...(fields["outside-means"] && { outsideMeans: outsideMeans(fields["outside-means"]) }),
        ...(fields.protocol && { protocol: "paper" }),
      },
    },
  ];
  for (const name of VARIED_NAMES) {
    const field = fields[name];
    if (field) variants = variants.flatMap((variant) => varied(variant, name, field));
  }
  const where = node?.where ?? path;
  return variants.map(({ label, options }) => ({ label, where, value: { ...OPTION_DEFAULTS, ...options } }));
}

/** A variant for each value of an option; where there are several, their names say which. */
function varied(variant: { label: string; options: Partial<GivenOptions> }, name: Varied, node: PlanNode) {
  const [option, read] = VARIED[name];
  const values = (node.isList ? node.items("values of the option") : [node]).map((item) => read(item));
  const twice = values.find((value, i) => values.indexOf(value) < i);
  if (twice !== undefined) node.refuse("each value once", JSON.stringify(twice));
  return values.map((value, i) => {
    const mark = values.length === 1 ? [] : [`${name}=${option === "template" ? i + 1 : value}`];
    const label = [...(variant.label === "" ? [] : [variant.label]), ...mark].join(" ");
    return { label, options: { ...variant.options, [option]: value } };
  });
}

function outsideMeans(node: PlanNode): string[] {
  return node.items("a list of tasks", { empty: true }).map((item) => item.text("the name of a task"));
}
