import { rmSync } from "node:fs";

const paths = new Set<string>();

/**
 * Removes a path (a file, or a folder with all in it) should the process exit before {@link keep} is called for it:
 * temporary files and locks do not outlive an interrupted run. Only a kill that no process notices leaves them.
 */
export function removeOnExit(path: string): void {
  if (paths.size === 0) process.on("exit", cleanUp);
  paths.add(path);
}

/** Takes back {@link removeOnExit}: the path is gone, or is to stay. */
export function keep(path: string): void {
  paths.delete(path);
  if (paths.size === 0) process.off("exit", cleanUp);
}

/** Removes what {@link removeOnExit} was called for. For ends that are no exits: signals. */
export function cleanUp(): void {
  for (const path of paths) {
    try {
      rmSync(path, { recursive: true, force: true });
    } catch {
      // The process is ending; there is nobody left to tell.
    }
  }
}
