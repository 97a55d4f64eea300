import type { Modality } from "xpatch";
import { type EfficiencyResult, efficiency, type Measured, type Way } from "./cells/efficiency.ts";
import { tasksWith } from "./cells/layer-sweep.ts";
import { validationCells } from "./cells/validation.ts";
import { contrast } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, widestQuery } from "./framework/prompts.ts";
import { type Contrast, judged } from "./framework/rule.ts";
import type { LinesFigure } from "./report/figure.ts";
import type { Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { meanOverInputs } from "./statistics/resample.ts";

const WAY_NAMES: Readonly<Record<Way, string>> = {
  prompt: "prompt",
  patch: "patch, a full run",
  resumed: "patch, recorded and resumed",
  further: "a further patch of the same query",
};

type Run = Measured["runs"][number];

export const efficiencyExperiment: Experiment = {
  name: "efficiency",
  title: "What a prompt costs, and a patch",
  claim:
    "A query whose task is told by a patch is answered in less time and with less memory than behind the examples themselves; at 30 examples the paper has 11 times the runtime and 2.4 times the memory.",
  onlyInFull: true,
  cells: (lab) => [
    ...validationCells(lab),
    ...queriesOf(lab).map((query) => efficiency({ task: taskOf(lab, query), query })),
  ],
  report(lab): Findings {
    const { model, adapter, options } = lab.setting;
    return {
      verdict: verdictOf(lab),
      text: [
        `Measured on ${model.name} (${model.layers} layers, weights in ${model.dtypes.join(" and ")}, computed in f32) on ${adapter}: single queries, one after the other, from the prompt on the host to the next token on the host, text examples, template ${JSON.stringify(options.template)}. Pictures are decoded beforehand; their towers are run each time, but not for a further patch.`,
        "Rows times layers, dispatches and bytes are counted and are the same on any machine with these kernels. Times are not: they depend on the machine and on what else it does, so that only their ratios say something, and they are the one thing in this report that does not come out the same again.",
        "The vector itself costs one prompt of its examples, once for all queries; it is not counted here. Memory is what tensors have in use at a time beyond what was there before (weights, and for a further patch the recording).",
      ],
      figures: [
        figureOf(lab, "time", "Time of an answer", "milliseconds", ({ seconds }) => seconds * 1000),
        figureOf(lab, "memory", "Memory of an answer, without the weights", "MB", ({ peak }) => peak / 1e6),
      ],
      tables: [workTable(lab)],
      controls: [agreementTable(lab)],
    };
  },
};

function verdictOf(lab: Lab): Verdict {
  const query = widestQuery(lab);
  const { measured, resident } = resultOf(lab, query);
  const [prompt, patch] = [promptOfMost(measured), ofWay(measured, "patch")];
  const ratio = (value: (run: Run) => number): Contrast => {
    const inputs = [...new Set(prompt.runs.map(({ input }) => input))];
    const logs = inputs.map((input) => {
      const of = ({ runs }: Measured) => median(runs.filter((run) => run.input === input).map(value));
      return Math.log2(of(prompt) / of(patch));
    });
    return contrast((level) => meanOverInputs(logs, inputs, { range: [-20, 20], level }));
  };
  const times = (value: (run: Run) => number, digits = 1) =>
    (medianOf(prompt, value) / medianOf(patch, value)).toFixed(digits);
  return judged(
    RULES.efficiency,
    {
      time: { time: ratio(({ seconds }) => seconds) },
      memory: { memory: ratio(({ peak }) => peak) },
    },
    `${QUERY_NAMES[query]}, ${prompt.examples} examples against the patch, medians: time ${times(({ seconds }) => seconds)} times, tokens ${times(({ tokens }) => tokens)} times, memory ${times(({ peak }) => peak)} times (${times(({ peak }) => peak + resident, 2)} times with the weights)`,
  );
}

function figureOf(
  lab: Lab,
  name: string,
  title: string,
  y: string,
  value: (run: Run) => number,
): LinesFigure {
  return {
    kind: "lines",
    name,
    title,
    caption: `Model ${lab.setting.model.name} on ${lab.setting.adapter}: medians over ${resultOf(lab, widestQuery(lab)).measured[0]!.runs.length} queries. A patch stands for any number of examples.`,
    x: "examples",
    y,
    intervals: "from the lower quarter to the upper one",
    rows: queriesOf(lab).flatMap((query) => {
      const { measured } = resultOf(lab, query);
      const counts = measured.filter(({ way }) => way === "prompt").map(({ examples }) => examples);
      return measured.flatMap((one) => {
        const values = one.runs.map(value);
        const at = { y: median(values), low: quantile(values, 0.25), high: quantile(values, 0.75) };
        const places = one.way === "prompt" ? [one.examples] : [counts[0]!, counts.at(-1)!];
        return places.map((x) => ({ panel: QUERY_NAMES[query], series: WAY_NAMES[one.way], x, ...at }));
      });
    }),
  };
}

function workTable(lab: Lab): Table {
  return {
    name: "work",
    title: "An answer: what was counted and measured, medians over queries",
    columns: [
      "query",
      "way",
      "examples",
      "tokens",
      "rows × layers",
      "dispatches",
      "kB written",
      "peak MB, without weights",
      "peak MB, with them",
      "milliseconds",
      "lower quarter",
      "upper quarter",
      "times the patch's time",
      "runs",
    ],
    rows: queriesOf(lab).flatMap((query) => {
      const { measured, resident } = resultOf(lab, query);
      const patch = medianOf(ofWay(measured, "patch"), ({ seconds }) => seconds);
      return measured.map((one) => {
        const of = (value: (run: Run) => number) => medianOf(one, value);
        const milliseconds = one.runs.map(({ seconds }) => seconds * 1000);
        return [
          QUERY_NAMES[query],
          WAY_NAMES[one.way],
          one.way === "prompt" ? one.examples : "any",
          of(({ tokens }) => tokens),
          of(({ rowLayers }) => rowLayers),
          of(({ dispatches }) => dispatches),
          of(({ written }) => written / 1e3),
          of(({ peak }) => peak / 1e6),
          of(({ peak }) => (peak + resident) / 1e6),
          median(milliseconds),
          quantile(milliseconds, 0.25),
          quantile(milliseconds, 0.75),
          of(({ seconds }) => seconds) / patch,
          one.runs.length,
        ];
      });
    }),
  };
}

/** The three ways to patch have to give the same tokens. */
function agreementTable(lab: Lab): Table {
  return {
    name: "agreement",
    title: "Runs in which the token is that of the patched full run",
    columns: ["query", "way", "the same", "runs"],
    rows: queriesOf(lab).flatMap((query) => {
      const { measured } = resultOf(lab, query);
      const full = ofWay(measured, "patch").runs;
      return (["resumed", "further"] as const).map((way) => {
        const { runs } = ofWay(measured, way);
        const same = runs.filter(({ answer }, i) => answer === full[i]!.answer).length;
        return [QUERY_NAMES[query], WAY_NAMES[way], same, runs.length];
      });
    }),
  };
}

function resultOf(lab: Lab, query: Modality): EfficiencyResult {
  return lab.result(efficiency({ task: taskOf(lab, query), query }));
}

function ofWay(measured: readonly Measured[], way: Way): Measured {
  return measured.find((one) => one.way === way)!;
}

function promptOfMost(measured: readonly Measured[]): Measured {
  return measured.filter(({ way }) => way === "prompt").at(-1)!;
}

function medianOf({ runs }: Measured, value: (run: Run) => number): number {
  return median(runs.map(value));
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** With linear interpolation between the values. */
function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(place)]!, sorted[Math.ceil(place)]!];
  return below + (above - below) * (place - Math.floor(place));
}

/** All tasks' prompts cost alike; the first one's are measured. */
function taskOf(lab: Lab, query: Modality): string {
  return tasksWith(lab, { specification: "text", query }, lab.tasksInMeans)[0]!.name;
}

function queriesOf(lab: Lab): Modality[] {
  return (["text", "image"] as const).filter(
    (query) => tasksWith(lab, { specification: "text", query }, lab.tasksInMeans).length > 0,
  );
}
