import { appendFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { writeWhole } from "../../platform/node-write.ts";

export const LOG = "log.csv";

/**
 * What trackio and W&B import: a step a row, and numbers. Names have at most ten letters and no other characters, as trackio keeps no
 * more of them.
 */
const COLUMNS = ["step", "timestamp", "loss", "gradnorm", "lr", "accuracy"] as const;
const HEADER = COLUMNS.join(",");

/** `step` is from 1; 0 is before the first. */
export type LogRow = { readonly step: number } & Partial<
  Record<Exclude<(typeof COLUMNS)[number], "step" | "timestamp">, number>
>;

/** Whether a file is such a log. */
export async function isTrainingLog(path: string): Promise<boolean> {
  return (await readFile(path, "utf8")).startsWith(`${HEADER}\n`);
}

/** The log of a training, in `log.csv` of its folder; a row is in the file when `add` returns. */
export class TrainingLog {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /** Begins a log, or goes on with one: what it says of steps after `resumedAt` was lost with them. */
  static async begin(path: string, resumedAt: number): Promise<TrainingLog> {
    const before = resumedAt === 0 ? [] : await linesOf(path);
    const kept = before.filter((line) => {
      const [step, , loss] = line.split(",");
      // The accuracy at the end is asked for anew.
      return Number(step) <= resumedAt && (step === "0" || loss !== "");
    });
    await writeWhole(path, [HEADER, ...kept, ""].join("\n"));
    return new TrainingLog(path);
  }

  add(row: LogRow): void {
    const values = { ...row, timestamp: new Date().toISOString() };
    appendFileSync(this.#path, `${COLUMNS.map((name) => values[name] ?? "").join(",")}\n`);
  }
}

/** The whole lines below the header; none where there is no log. */
async function linesOf(path: string): Promise<string[]> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  const [header, ...lines] = text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .slice(0, -1);
  return header === HEADER ? lines : [];
}
