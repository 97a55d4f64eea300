import { readFileSync, readlinkSync } from "node:fs";

/** Fields of `/proc/<pid>/stat` behind the command's name (proc(5)): the state, and when the process started. */
const STATE = 0;
const START_TIME = 19;

/** Whether this process still runs; `start`, if known, tells it from a later one with the same id. */
export function isRunning(pid: number, start: string | undefined): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it is another user's.
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const fields = statOf(pid);
  if (fields?.[STATE] === "Z") return false;
  return !start || !fields || fields[START_TIME] === start;
}

/** When a process started, in a form to be compared; undefined where the system does not say (all but Linux). */
export function processStart(pid: number): string | undefined {
  return statOf(pid)?.[START_TIME];
}

/** The set of processes that ids refer to: that of the machine, or of a container. Undefined on all but Linux. */
export function processSpace(): string | undefined {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return undefined;
  }
}

function statOf(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name is in parentheses and may hold anything, parentheses too.
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}
