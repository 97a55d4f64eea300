/** Prints a result: as JSON, or as text for people. Nothing else is written to stdout. */
export function printResult<T>(result: T, json: boolean | undefined, format: (result: T) => string): void {
  process.stdout.write(`${json ? JSON.stringify(result, null, 2) : format(result)}\n`);
}

/** Says something by the way, on stderr. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}
