import { Presets, SingleBar } from "cli-progress";
import type { RunProgress } from "#experiments/index";
import { note } from "../terminal/output.ts";
import { paced } from "../terminal/progress.ts";

/** Seconds between two lines where there is no bar: runs take hours. */
const LINE_SECONDS = 30;

/** Shows how far experiments are, with the time left: a bar if stderr is a terminal, else a line now and then. */
export function experimentProgress(): { update: (progress: RunProgress) => void } & Disposable {
  if (!process.stderr.isTTY) return { update: lines(), [Symbol.dispose]: () => {} };
  const format = "{experiment} {bar} {value}/{total} {left} {cell}";
  const bar = new SingleBar(
    { format, stream: process.stderr, clearOnComplete: true, hideCursor: true },
    Presets.shades_classic,
  );
  bar.start(1, 0, { experiment: "", left: "", cell: "" });
  return {
    update({ experiment, cell = "", done, total, secondsLeft }) {
      bar.setTotal(total);
      bar.update(done, { experiment, left: showLeft(secondsLeft), cell });
    },
    [Symbol.dispose]: () => bar.stop(),
  };
}

function lines(): (progress: RunProgress) => void {
  const isDue = paced(LINE_SECONDS, Number.NEGATIVE_INFINITY);
  return ({ experiment, cell, done, total, secondsLeft }) => {
    // The end of an experiment has no cell.
    if (!isDue(cell === undefined)) return;
    note([experiment, `${done}/${total}`, showLeft(secondsLeft), cell].filter(Boolean).join("  "));
  };
}

/** 754 → "13 min left". */
function showLeft(seconds: number | undefined): string {
  if (seconds === undefined) return "";
  return seconds < 90 ? `${Math.ceil(seconds)} s left` : `${Math.round(seconds / 60)} min left`;
}
