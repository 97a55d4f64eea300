import { CheckpointError } from "../../../errors.ts";

/** Characters whose escape means the same in both languages. */
const SAME_ESCAPE = /[\^$\\.*+?()[\]{}|/bBdDsSwWfnrtv]/;

/**
 * A regular expression of Python's `re` for whole strings of ASCII. Throws CheckpointError for what JavaScript does not
 * have or reads otherwise: flags and names in groups, references to groups, `\A` and `\Z`.
 */
export function pythonRegex(source: string, where: string): RegExp {
  const quoted = JSON.stringify(source);
  const translated = source.replace(/\\([\s\S])/g, (whole, character: string) => {
    if (SAME_ESCAPE.test(character)) return whole;
    if (/[A-Za-z0-9]/.test(character)) {
      throw new CheckpointError(`${where}: ${whole} in the regular expression ${quoted} is not supported`);
    }
    return character === "-" ? "\\x2d" : character; // Python lets any sign be escaped
  });
  try {
    return new RegExp(`^(?:${translated})$`, "u");
  } catch (cause) {
    throw new CheckpointError(`${where}: ${(cause as Error).message}`, { cause });
  }
}
