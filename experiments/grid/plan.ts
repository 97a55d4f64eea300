import type { ReadOptions } from "xpatch";
import type { GivenOptions } from "../framework/lab-options.ts";
import type { Setting } from "../framework/setting.ts";

/** A model of a plan. References are as `loadModel` takes them; folders may be relative to the plan's. */
export interface PlanModel extends ReadOptions {
  readonly model: string;
  /** The language model that it was fine-tuned from. */
  readonly llm?: string;
  readonly lora?: readonly string[];
  readonly base?: string;
}

/** What a plan asks for, checked as far as that is possible without opening models and tasks. */
export interface GridPlan {
  /** The folder of the plan's file, which paths in it are relative to. */
  readonly folder: string;
  readonly models: readonly PlanEntry<PlanModel>[];
  readonly tasks: readonly PlanEntry<string>[];
  /** Names, each once. */
  readonly experiments: readonly string[];
  /** Every combination of the values of options; one where each has a single value. */
  readonly variants: readonly PlanEntry<GivenOptions>[];
}

/** A part of a plan, what results call it, and where it stands: `plan.yaml:3: models[0]`. */
export interface PlanEntry<T> {
  readonly label: string;
  readonly where: string;
  readonly value: T;
}

/** What is known of a run's setting before anything is computed: all but the machine's part. */
export type PlannedSetting = Pick<Setting, "model" | "llm" | "options" | "tasks">;

/** One model under one set of options, over all tasks: what `xpatch experiment` computes into one folder. */
export interface PlannedRun {
  /** 16 hex digits of a hash over all that its numbers depend on, but for the machine. */
  readonly id: string;
  /** Where its results go, in the folder of all results: `vlm`, `vlm/shots=2`. */
  readonly label: string;
  readonly source: PlanModel;
  /** References to the tasks. */
  readonly tasks: readonly string[];
  /** As they were given; the setting has what they come to. */
  readonly options: GivenOptions;
  readonly setting: PlannedSetting;
  /** SHA-256 over what is read of the model without its weights: config, tokenizer, preprocessing. */
  readonly outline: string;
}

/** The cells of a run. */
export interface RunCells {
  readonly experiments: readonly PlannedExperiment[];
  /** Keys, each once, in the order in which one process computes them. */
  readonly keys: readonly string[];
}

export interface PlannedExperiment {
  readonly name: string;
  /** Why the model cannot test it, if it cannot; then it has no cells. */
  readonly untestable?: string;
  /** Places of its cells in the run's. */
  readonly cells: readonly number[];
}

export interface ExpandedPlan {
  /** Version of xpatch. */
  readonly version: string;
  /** Absolute. */
  readonly folder: string;
  readonly runs: readonly (PlannedRun & RunCells)[];
}

/** A cell of a grid, by its name: `3f2a9c0d11e8b764-8e0b…`. */
export interface PlannedCell {
  /** The run's id and 24 hex digits of a hash over that and the key: content-addressed, and unique in any grid. */
  readonly name: string;
  /** `layer-sweep query=image …`, as in the cells of `xpatch experiment`. */
  readonly key: string;
  readonly kind: string;
  /** Id of its run. */
  readonly run: string;
}
