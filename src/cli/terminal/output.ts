import { Presets, SingleBar } from "cli-progress";

/** Prints a result: as JSON, or as text for people. Nothing else is written to stdout. */
export function printResult<T>(result: T, json: boolean | undefined, format: (result: T) => string): void {
  process.stdout.write(`${json ? JSON.stringify(result, null, 2) : format(result)}\n`);
}

/** Says something by the way, on stderr. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Shows a progress bar while `work` goes on, if stderr is a terminal. */
export async function withProgress<T>(
  title: string,
  work: (update: (done: number, total: number) => void) => Promise<T> | T,
): Promise<T> {
  const bar = new SingleBar(
    {
      format: `${title} {bar} {percentage} %`,
      stream: process.stderr,
      clearOnComplete: true,
    },
    Presets.shades_classic,
  );
  bar.start(1, 0);
  try {
    return await work((done, total) => {
      bar.setTotal(total);
      bar.update(done);
    });
  } finally {
    bar.stop();
  }
}
