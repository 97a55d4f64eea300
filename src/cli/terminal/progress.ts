import { Presets, SingleBar } from "cli-progress";
import { note } from "./output.ts";

/** Seconds until the first line where there is no bar, and between two lines. Quick work prints none. */
const LINE_SECONDS = 10;

/** Whether so many seconds have passed since the last time that it was due (at first: since `last`), or it is due anyway. */
export function paced(seconds: number, last = performance.now()): (anyway?: boolean) => boolean {
  return (anyway = false) => {
    const now = performance.now();
    if (!anyway && now - last < 1000 * seconds) return false;
    last = now;
    return true;
  };
}

/** The lines of a command, whose parts may each be quick. */
const line = paced(LINE_SECONDS);

/** How far work is; `what` in place of its title, for a part of it. */
export type Update = (done: number, total: number, what?: string) => void;

/** Shows how far `work` is: as a bar if stderr is a terminal, else as a line whenever one is due. */
export async function withProgress<T>(
  title: string,
  work: (update: Update) => Promise<T> | T,
  isDue: () => boolean = line,
): Promise<T> {
  if (!process.stderr.isTTY) {
    return await work((done, total, what = title) => {
      if (done < total && isDue()) note(`${what}  ${Math.floor((100 * done) / total)} %`);
    });
  }
  const format = "{what} {bar} {percentage} %";
  const bar = new SingleBar(
    { format, stream: process.stderr, clearOnComplete: true },
    Presets.shades_classic,
  );
  bar.start(1, 0, { what: title });
  try {
    return await work((done, total, what = title) => {
      bar.setTotal(total);
      bar.update(done, { what });
    });
  } finally {
    bar.stop();
  }
}
