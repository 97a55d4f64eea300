import { scoreSweep } from "../../analysis/vectors/score-sweep.ts";
import { sweepLayers } from "../../analysis/vectors/sweep-layers.ts";
import { SessionError } from "../../errors.ts";
import { settingOf } from "../../patching/setting.ts";
import { type ScoredAnswers, scoreTokens } from "../../tasks/score.ts";
import { itemsIn } from "../../tasks/specification.ts";
import type { Task } from "../../tasks/task.ts";
import type { ScoreSummary, TaskSummary } from "../messages/results.ts";
import { preparePictures } from "../read/prepare-pictures.ts";
import { readSpecify } from "../read/specify.ts";
import { taskPrompts } from "../read/task-prompts.ts";
import type { Handler } from "../read/work.ts";
import { modelOf } from "./models.ts";

/** Patched prompts of one batch: between batches the device is read, others hear how far it is, and the request can be given up. */
const BATCH_ROWS = 64;

export const tasks: Handler<"tasks"> = async (work) => ({ tasks: (await work.tasks.all()).map(summaryOf) });

function summaryOf({ name, instruction, source, license, items }: Task): TaskSummary {
  return {
    name,
    ...(instruction !== undefined && { instruction }),
    ...(source !== undefined && { source }),
    ...(license !== undefined && { license }),
    items: items.map(({ input, outputs, split, image, emoji }) => ({
      input,
      outputs,
      split,
      picture: image !== undefined,
      ...(emoji !== undefined && { emoji }),
    })),
  };
}

export const taskPicture: Handler<"task.picture"> = async (work, { task, input }) => {
  if (typeof task !== "string") {
    throw new SessionError("expected the name of a task; the pictures of others are the client's", {
      code: "refused",
    });
  }
  return { bytes: await work.tasks.pictureFile(task, input), type: "image/png" };
};

export const sweep: Handler<"sweep"> = async (work, params) => {
  const model = modelOf(work, params.model);
  const { taskVectors } = work.kept.get("vector", params.vector);
  const usable = await work.tasks.use(work, params.task);
  const { split = "validation", asked = "text", template } = params;
  const items = itemsIn(asked, usable.task, split).slice(0, params.items);
  const specify = { ...readSpecify(params.specify), ...(template !== undefined && { template }) };
  const queries = await taskPrompts(model, usable, items, asked, specify);
  await preparePictures(work, model, queries);
  const swept = await sweepLayers(model, queries, taskVectors, {
    batchRows: BATCH_ROWS,
    onProgress: (done) => work.progress({ phase: "items", done, total: items.length }),
    ...(params.layers && { layers: params.layers }),
  });
  const { tokenizer } = model;
  const { layers, best } = scoreSweep(tokenizer, items, swept);
  return {
    setting: settingOf(model),
    inputs: items.map(({ input }) => input),
    layers: layers.map((score) => ({ layer: score.layer, ...scoreOf(score) })),
    best,
    unpatched: scoreOf(scoreTokens(tokenizer, items, swept.unpatched)),
    rowLayers: swept.rowLayers,
    plainRowLayers: swept.plainRowLayers,
  };
};

function scoreOf({ correct, total, accuracy, majority, distinct, answers }: ScoredAnswers): ScoreSummary {
  return { correct, total, accuracy, majority, distinct, answers };
}
