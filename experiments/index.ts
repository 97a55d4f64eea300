/** The paper's experiments, and how they are run. */

import { arithmetic } from "./arithmetic.ts";
import { clustering } from "./clustering.ts";
import { crossModal } from "./cross-modal.ts";
import { decoded } from "./decoded.ts";
import { denseText } from "./dense-text.ts";
import { efficiencyExperiment } from "./efficiency.ts";
import { entity } from "./entity.ts";
import { fineTuning } from "./fine-tuning.ts";
import type { Experiment } from "./framework/experiment.ts";
import { grounding } from "./grounding.ts";
import { instructions } from "./instructions.ts";
import { lens } from "./lens.ts";
import { llmToVlm } from "./llm-to-vlm.ts";
import { longAnswers } from "./long-answers.ts";
import { overriding } from "./overriding.ts";
import { sweep } from "./sweep.ts";
import { taskConflict } from "./task-conflict.ts";
import { templates } from "./templates.ts";

export { AskedTasks, hasPictures } from "./framework/asked-tasks.ts";
export { addCosts, forwardPassEquivalents, NO_COST } from "./framework/cost.ts";
export type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
export { FolderLock } from "./framework/folder-lock.ts";
export { Lab } from "./framework/lab.ts";
export {
  checkTasks,
  type GivenOptions,
  labOptions,
  OPTION_DEFAULTS,
  SET_BY_PROTOCOL,
} from "./framework/lab-options.ts";
export { type Finished, type RunProgress, runExperiments } from "./framework/runner.ts";
export { type Setting, settingOf, taskSettings } from "./framework/setting.ts";
export { Store } from "./framework/store.ts";
export { PAPER_TASKS } from "./paper.ts";
export { PAPER_PROTOCOL, paperTasks } from "./protocol.ts";
export { showCell, type Table } from "./report/table.ts";
export { ROW_FORMATS, type RowFormat, type WrittenRows, writeRows } from "./rows/write-rows.ts";

/** In the order of the report. */
export const EXPERIMENTS: readonly Experiment[] = [
  crossModal,
  entity,
  llmToVlm,
  instructions,
  sweep,
  templates,
  taskConflict,
  lens,
  clustering,
  grounding,
  arithmetic,
  overriding,
  denseText,
  longAnswers,
  decoded,
  fineTuning,
  efficiencyExperiment,
];
