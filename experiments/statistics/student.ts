import jstat from "jstat";

/** Beyond these jStat's continued fraction loses digits, and the distribution is the normal one to seven of them. */
const MOST_DEGREES = 1e5;

const known = new Map<string, number>();

/** Half the width of an interval of Student's t in standard errors: 1.96 for 95 % and many degrees of freedom. */
export function studentFactor(level: number, degreesOfFreedom: number): number {
  if (!(level > 0 && level < 1)) throw new RangeError(`expected a level between 0 and 1, found ${level}`);
  const degrees = Math.min(MOST_DEGREES, degreesOfFreedom);
  const key = `${level} ${degrees}`;
  let factor = known.get(key);
  if (factor === undefined) {
    factor = jstat.studentt.inv((1 + level) / 2, degrees);
    known.set(key, factor);
  }
  return factor;
}

/** The share of the standard normal distribution below `x`. */
export function normalShareBelow(x: number): number {
  return jstat.normal.cdf(x, 0, 1);
}
