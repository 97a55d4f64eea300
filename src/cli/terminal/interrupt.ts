import { cleanUp } from "../../platform/node-exit.ts";
import { note } from "./output.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const SHOW_CURSOR = "\u001b[?25h";

let advice = (): string | undefined => undefined;

/** What to say, beside that it was stopped, if the process is stopped while `work` goes on. */
export async function stoppable<T>(
  sayIfStopped: () => string | undefined,
  work: () => Promise<T>,
): Promise<T> {
  advice = sayIfStopped;
  try {
    return await work();
  } finally {
    advice = () => undefined;
  }
}

let stopped: ((signal: NodeJS.Signals) => void) | undefined;

/**
 * Resolves with the signal that tells the process to end, which it then leaves to the caller; it ends with the next one all the
 * same.
 */
export function untilStopped(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    stopped = resolve;
  });
}

/** Has signals that end the process leave no temporary files, locks or hidden cursor behind. It ends by the signal. */
export function endCleanly(): void {
  for (const signal of SIGNALS) {
    process.on(signal, function end() {
      if (stopped) {
        stopped(signal);
        stopped = undefined;
        return;
      }
      process.off(signal, end);
      cleanUp();
      const { isTTY } = process.stderr;
      if (isTTY) process.stderr.write(`${SHOW_CURSOR}\n`);
      const further = advice();
      note(`xpatch: stopped by ${signal}${further === undefined ? "" : `; ${further}`}`);
      process.kill(process.pid, signal);
    });
  }
}
