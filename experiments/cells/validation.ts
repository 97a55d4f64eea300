import type { Cell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { seedsOf } from "../framework/prompts.ts";
import { layerSweep, setupsOf } from "./layer-sweep.ts";
import { taskVectors } from "./task-vectors.ts";

/** Task vectors of every specification and seed, and their sweeps over the layers: what `chosenLayer` goes by. */
export function validationCells(lab: Lab): Cell<unknown>[] {
  return lab.tasks.flatMap((task) => {
    const setups = setupsOf(lab, [task]);
    const specifications = [...new Set(setups.map(({ specification }) => specification))];
    const vectors = specifications.flatMap((specification) =>
      seedsOf(lab, specification).map((seed) =>
        taskVectors({ source: "model", task: task.name, specification, seed }),
      ),
    );
    return [...vectors, ...setups.map((setup) => layerSweep({ ...setup, task: task.name }))];
  });
}
