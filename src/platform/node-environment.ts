import { createServer } from "node:net";
import { isMainThread, threadId } from "node:worker_threads";
import { likeNode } from "./node-native.ts";

/**
 * The environment variables of the process, as native code sees them. A worker thread's `process.env` is a copy that
 * native code never looks at, unless the thread was started with `env: SHARE_ENV`.
 */
export function nativeEnvironment(): Readonly<Record<string, string | undefined>> {
  if (isMainThread) return process.env;
  const report = process.report as NodeJS.ProcessReport & { excludeNetwork?: boolean };
  const { excludeNetwork } = report;
  // Looks up the names of all peers otherwise.
  report.excludeNetwork = true;
  const { environmentVariables } = report.getReport() as unknown as {
    environmentVariables: Record<string, string>;
  };
  report.excludeNetwork = excludeNetwork;
  return environmentVariables;
}

let shared: boolean | undefined;

/** Whether native code can be made to see what this thread sets; in Node, only through the `process.env` of the process. */
export function writesNativeEnvironment(): boolean {
  if (isMainThread || likeNode) return true;
  if (shared === undefined) {
    const probe = `XPATCH_PROBE_${threadId}`;
    process.env[probe] = "1";
    shared = nativeEnvironment()[probe] !== undefined;
    delete process.env[probe];
  }
  return shared;
}

/**
 * Runs `fn` while no other thread of this process is in a function that was given to this one: threads that share an
 * environment take turns at changing it.
 *
 * A socket of Linux's abstract namespace is the lock. Only one can listen on its name, and it goes with whoever dies.
 * Where sockets are not to be had, nobody waits.
 */
export async function inTurn<T>(fn: () => Promise<T>): Promise<T> {
  const release = await turn();
  try {
    return await fn();
  } finally {
    release();
  }
}

async function turn(): Promise<() => void> {
  if (process.platform !== "linux") return () => {};
  for (;;) {
    const server = createServer();
    const code = await new Promise<string | undefined>((settled) => {
      const failed = (error: NodeJS.ErrnoException) => settled(error.code ?? error.message);
      server.once("error", failed);
      try {
        // Exclusive: in a cluster, the primary would listen otherwise.
        server.listen({ path: `\0xpatch-environment-${process.pid}`, exclusive: true }, () =>
          settled(undefined),
        );
      } catch (error) {
        failed(error as Error); // Deno, without the permission
      }
    });
    if (code === undefined) return () => void server.close();
    if (code !== "EADDRINUSE") return () => {};
    await new Promise((waited) => setTimeout(waited, 5));
  }
}
