import { XpatchError } from "xpatch";

/** The index-th of count shards, from 1. */
export interface Shard {
  readonly index: number;
  readonly count: number;
  /** Where that is known from. */
  readonly from: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** `3/10`. Throws XpatchError for what is none. */
export function parseShard(text: string, from = "--shard"): Shard {
  const [, index, count] = /^(\d{1,7})\/(\d{1,7})$/.exec(text) ?? [];
  const [i, n] = [Number(index), Number(count)];
  if (index === undefined || i < 1 || i > n) {
    throw new XpatchError(`${from}: expected a shard such as 1/8 to 8/8, found ${text}`);
  }
  return { index: i, count: n, from };
}

/**
 * The shard of a task of a Slurm array (SLURM_ARRAY_TASK_ID, _MIN, _MAX, _STEP, _COUNT) or of an indexed Kubernetes job
 * (JOB_COMPLETION_INDEX, and JOB_COMPLETIONS, which the job's manifest has to set); undefined elsewhere.
 *
 * Throws XpatchError where the variables say something that is no shard.
 */
export function shardOfEnvironment(env: Environment): Shard | undefined {
  const number = (name: string): number => {
    const text = env[name] ?? "";
    if (/^\d{1,7}$/.test(text)) return Number(text);
    throw new XpatchError(
      `${name}: expected a whole number, found ${text === "" ? "nothing" : JSON.stringify(text)}`,
    );
  };
  const shard = (index: number, count: number, from: string): Shard => {
    if (Number.isInteger(index) && index >= 1 && index <= count) return { index, count, from };
    throw new XpatchError(`${from}: expected a shard, found ${index} of ${count}`);
  };
  if (env["SLURM_ARRAY_TASK_ID"] !== undefined) {
    const [id, min] = [number("SLURM_ARRAY_TASK_ID"), number("SLURM_ARRAY_TASK_MIN")];
    const step = env["SLURM_ARRAY_TASK_STEP"] === undefined ? 1 : number("SLURM_ARRAY_TASK_STEP");
    const count = number("SLURM_ARRAY_TASK_COUNT");
    const max = number("SLURM_ARRAY_TASK_MAX");
    if (Math.floor((max - min) / step) + 1 !== count) {
      throw new XpatchError(
        `SLURM_ARRAY_TASK_ID: the array from ${min} to ${max} has gaps (${count} tasks), so that the shard is not known; give --shard`,
      );
    }
    return shard((id - min) / step + 1, count, "SLURM_ARRAY_TASK_ID");
  }
  if (env["JOB_COMPLETION_INDEX"] !== undefined) {
    return shard(number("JOB_COMPLETION_INDEX") + 1, number("JOB_COMPLETIONS"), "JOB_COMPLETION_INDEX");
  }
  return undefined;
}

/**
 * The cells of a shard. Shards are ranges of the plan as long as each other, so that few of them load more than one model; within a
 * run its shards take turns, as cells later in a run ask for those before them.
 *
 * @param counts - How many cells each run has, in order.
 * @returns for each run the places of the shard's cells
 */
export function shardOf(
  counts: readonly number[],
  { index, count }: Pick<Shard, "index" | "count">,
): number[][] {
  const total = counts.reduce((sum, n) => sum + n, 0);
  const bound = (shard: number) => Math.floor((shard * total) / count);
  let end = 0;
  return counts.map((size) => {
    const start = end;
    end += size;
    if (bound(index - 1) >= end || bound(index) <= start) return [];
    // Shards that have a share in the run, and how large it is.
    const shares: { shard: number; share: number }[] = [];
    let shard = Math.max(0, Math.floor((start * count) / total) - 1);
    for (; shard < count && bound(shard) < end; shard++) {
      const share = Math.min(bound(shard + 1), end) - Math.max(bound(shard), start);
      if (share > 0) shares.push({ shard, share });
    }
    return turns(shares, index - 1);
  });
}

/** Where it is a shard's turn, when all take turns as often as their shares say. */
function turns(shares: readonly { readonly shard: number; readonly share: number }[], own: number): number[] {
  const all = shares.flatMap(({ shard, share }) =>
    Array.from({ length: share }, (_, i) => ({ shard, at: (i + 0.5) / share })),
  );
  all.sort((a, b) => a.at - b.at || a.shard - b.shard);
  return all.flatMap(({ shard }, place) => (shard === own ? [place] : []));
}
