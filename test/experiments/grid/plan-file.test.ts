import { resolve } from "node:path";
import { expect, test } from "vitest";
import { PLAN_OPTIONS, parsePlan } from "../../../experiments/grid/plan-file.ts";
import { newCommand } from "../../../src/cli/options/command.ts";
import { addExperimentOptions } from "../../../src/cli/options/experiment-options.ts";
import { SPACED_TEMPLATE } from "../../../src/tasks/few-shot.ts";

const MODELS = "models: [xpatch:vlm]\n";
const PLAN = `${MODELS}experiments: [sweep]\n`;

test("what is left out has the defaults of the command line", () => {
  const { models, tasks, experiments, variants } = parsePlan(PLAN, "a/plan.yaml");
  expect(models).toEqual([
    { label: "vlm", where: "a/plan.yaml:1: models[0]", value: { model: "xpatch:vlm" } },
  ]);
  expect(tasks.map(({ value }) => value)).toContain("country-capital");
  expect(experiments).toEqual(["sweep"]);
  expect(variants).toEqual([
    {
      label: "",
      where: "a/plan.yaml",
      value: {
        seeds: 3,
        shots: 5,
        template: SPACED_TEMPLATE,
        layerBy: "mean",
        outsideMeans: ["food-flavor"],
        stack: "decoder",
      },
    },
  ]);
});

test("all fields; a list of an option's values is a run each, and JSON does as well", () => {
  const yaml = `
models:
  - model: org/name-7b
    llm: ./llm
    lora: [./one, ./two]
    base: ./base
    intermediate-layers: outputs
    label: seven
  - ./b
tasks: [country-capital, mine.csv]
specifications: [instruction, text]
seeds: 2
experiments:
  - sweep
  - { name: fine-tuning, train-steps: 8, train-tasks: 1, train-seeds: 2 }
options:
  shots: [2, 5]
  template: ["{x} is {y}\\n", "Q:{x}\\nA:{y}\\n\\n"]
  prompt-seeds: 1
  validation-items: 4
  test-items: 6
  picture-width: 224
  layer-by: task
  outside-means: []
`;
  const plan = parsePlan(yaml, "a/plan.yaml");
  expect(plan.folder).toBe(resolve("a"));
  expect(plan.models.map(({ label, value }) => [label, value])).toEqual([
    [
      "seven",
      {
        model: "org/name-7b",
        llm: "./llm",
        lora: ["./one", "./two"],
        base: "./base",
        intermediateLayers: "outputs",
      },
    ],
    ["b", { model: "./b" }],
  ]);
  expect(plan.experiments).toEqual(["sweep", "fine-tuning"]);
  expect(plan.variants.map(({ label, value: { shots, template } }) => [label, shots, template])).toEqual([
    ["shots=2 template=1", 2, "{x} is {y}\n"],
    ["shots=2 template=2", 2, "Q:{x}\nA:{y}\n\n"],
    ["shots=5 template=1", 5, "{x} is {y}\n"],
    ["shots=5 template=2", 5, "Q:{x}\nA:{y}\n\n"],
  ]);
  expect(plan.variants[0]!.value).toMatchObject({
    seeds: 2,
    specifications: ["text", "instruction"],
    trainSteps: 8,
    trainTasks: 1,
    trainSeeds: 2,
    promptSeeds: 1,
    validationItems: 4,
    testItems: 6,
    pictureWidth: 224,
    layerBy: "task",
    outsideMeans: [],
  });
  const json = JSON.stringify({ models: ["xpatch:vlm"], experiments: ["sweep"] });
  expect(parsePlan(json, "p").variants).toEqual(parsePlan(PLAN, "p").variants);
});

test("every option of `xpatch experiment` is a field of plans", () => {
  const command = addExperimentOptions(newCommand("experiment", "", []));
  const options = command.options.map(({ long }) => long!.slice(2));
  // Models, what is a field of its own, and where results go.
  const elsewhere = [
    "model",
    "lora",
    "base",
    "llm",
    "intermediate-layers",
    "tasks",
    "seeds",
    "specifications",
  ];
  const results = ["out", "rows"];
  expect(options.filter((name) => ![...elsewhere, ...results].includes(name)).sort()).toEqual(
    [...PLAN_OPTIONS].sort(),
  );
});

test.each([
  ["models: [", /^plan\.yaml:1: this is no YAML or JSON: /],
  ["- a\n", /^plan\.yaml:1: expected a mapping with models, tasks, /],
  ["", /^plan\.yaml:1: expected a mapping with .*, found nothing$/],
  [MODELS, /^plan\.yaml: expected a list "experiments", found none$/],
  ["experiments: [sweep]\n", /^plan\.yaml: expected a list "models", found none$/],
  [
    `${PLAN}modles: [a]\n`,
    /^plan\.yaml:3: there is no field "modles"; expected some of models, .*nearest is "models"$/,
  ],
  [`${PLAN}models: [b]\n`, /^plan\.yaml:3: this is no YAML or JSON: Map keys must be unique/],
  [
    "models: []\nexperiments: [sweep]\n",
    /^plan\.yaml:1: models: expected a list of models, found an empty list$/,
  ],
  [
    "models: xpatch:vlm\nexperiments: [sweep]\n",
    /^plan\.yaml:1: models: expected a list of models, found "xpatch:vlm"$/,
  ],
  ["models: [7]\nexperiments: [sweep]\n", /^plan\.yaml:1: models\[0\]: expected a model: .*, found 7$/],
  [
    "models:\n  - { llm: a }\nexperiments: [sweep]\n",
    /^plan\.yaml:2: models\[0\]: expected a field "model", found none$/,
  ],
  [
    "models:\n  - model: a\n    lorra: b\nexperiments: [sweep]\n",
    /^plan\.yaml:3: models\[0\]: there is no field "lorra"; .*nearest is "lora"$/,
  ],
  [
    "models: [a/m, b/m]\nexperiments: [sweep]\n",
    /^plan\.yaml:1: models\[1\]: two models are called "m"; give one/,
  ],
  [
    "models: [{ model: a, label: ../b }]\nexperiments: [sweep]\n",
    /models\[0\]\.label: expected a name of letters/,
  ],
  ["models: [a/M, b/m]\nexperiments: [sweep]\n", /^plan\.yaml:1: models\[1\]: two models are called "m"/],
  [
    "models: [a/lock]\nexperiments: [sweep]\n",
    /^plan\.yaml:1: models\[0\]: a file of the results is called "lock"/,
  ],
  [
    `${MODELS}experiments: [swep]\n`,
    /^plan\.yaml:2: experiments\[0\]: expected one of .*, found "swep"; the nearest is "sweep"$/,
  ],
  [`${MODELS}experiments: [sweep, sweep]\n`, /^plan\.yaml:2: experiments\[1\]: sweep stands there twice$/],
  [
    `${MODELS}experiments: [efficiency]\n`,
    /^plan\.yaml:2: experiments\[0\]: efficiency cannot be part of a grid: its cells are the time/,
  ],
  [
    `${MODELS}experiments: [{ name: sweep, train-steps: 8 }]\n`,
    /^plan\.yaml:2: experiments\[0\]: there is no field "train-steps"; expected some of name/,
  ],
  [
    `${PLAN}tasks: [country-capitol]\n`,
    /^plan\.yaml:3: tasks\[0\]: expected one of .*nearest is "country-capital"$/,
  ],
  [`${PLAN}tasks: [a.csv, a.csv]\n`, /^plan\.yaml:3: tasks\[1\]: a\.csv stands there twice$/],
  [`${PLAN}seeds: 0\n`, /^plan\.yaml:3: seeds: expected a whole number from 1, found 0$/],
  [`${PLAN}seeds: [1, 2]\n`, /^plan\.yaml:3: seeds: expected a whole number from 1, found a list$/],
  [`${PLAN}specifications: [image]\n`, /specifications: expected text among them, .*, found image$/],
  [
    `${PLAN}specifications: [text, word]\n`,
    /^plan\.yaml:3: specifications\[1\]: expected one of text, image, instruction, found "word"/,
  ],
  [
    `${PLAN}options: { shot: 2 }\n`,
    /^plan\.yaml:3: options: there is no field "shot"; .*nearest is "shots"$/,
  ],
  [
    `${PLAN}options:\n  shots: 1\n`,
    /^plan\.yaml:4: options\.shots: expected a whole number from 2, found 1$/,
  ],
  [`${PLAN}options:\n  shots: [2, 2]\n`, /^plan\.yaml:4: options\.shots: expected each value once, found 2$/],
  [
    `${PLAN}options:\n  shots: "5"\n`,
    /^plan\.yaml:4: options\.shots: expected a whole number from 2, found "5"$/,
  ],
  [`${PLAN}options:\n  template: "{x}"\n`, /^plan\.yaml:4: options\.template: .*\{y\}/],
  [
    `${PLAN}options:\n  layer-by: median\n`,
    /^plan\.yaml:4: options\.layer-by: expected one of mean, task, found "median"/,
  ],
  [
    `${PLAN}options: { protocol: paper, shots: 5 }\n`,
    /^plan\.yaml:3: options\.shots: the paper's protocol sets this/,
  ],
  [`${PLAN}seeds: 2\noptions: { protocol: paper }\n`, /^plan\.yaml:3: seeds: the paper's protocol sets this/],
  [`${PLAN}options: { train-steps: 5 }\n`, /^plan\.yaml:3: options: there is no field "train-steps"/],
])("%j is refused", (text, message) => {
  expect(() => parsePlan(text, "plan.yaml")).toThrow(message);
});
