import type { TaskSummary } from "../../../src/session/messages/results.ts";
import { type Asked, useAsked } from "../ask.ts";

/** The tasks that come with xpatch. */
export function useTasks(): Asked<readonly TaskSummary[]> {
  return useAsked(["task list"], async ({ client, signal }) => (await client.tasks({ signal })).tasks);
}
