import { rmdirSync, rmSync } from "node:fs";

/** With the folder that goes as well if that leaves it empty. */
const paths = new Map<string, string | undefined>();

/**
 * Removes a path (a file, or a folder with all in it) should the process exit before {@link keep} is called for it:
 * temporary files and locks do not outlive an interrupted run, nor does a `folder` that was made for them and has nothing else in
 * it. Only a kill that no process notices leaves them.
 */
export function removeOnExit(path: string, folder?: string): void {
  if (paths.size === 0) process.on("exit", cleanUp);
  paths.set(path, folder);
}

/** Takes back {@link removeOnExit}: the path is gone, or is to stay. */
export function keep(path: string): void {
  paths.delete(path);
  if (paths.size === 0) process.off("exit", cleanUp);
}

/** Removes what {@link removeOnExit} was called for. For ends that are no exits: signals. */
export function cleanUp(): void {
  for (const [path, folder] of paths) {
    try {
      rmSync(path, { recursive: true, force: true });
      if (folder !== undefined) removeIfEmpty(folder);
    } catch {
      // The process is ending; there is nobody left to tell.
    }
  }
}

export function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // There is something in it.
  }
}
