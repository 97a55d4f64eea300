import { CheckpointError } from "../../src/errors.ts";
import { modelStore } from "./model-store.ts";
import type { Manifest } from "./models/manifest.ts";

/** The one file with the tasks and their pictures (scripts/pack-tasks.mjs), from this browser's storage where it can be kept. */
export async function taskFile(manifest: Manifest): Promise<Blob> {
  const [file] = manifest.files;
  const kept = await modelStore.fetch("tasks", manifest);
  if ("files" in kept) return kept.files.get(file!.path)!;
  const response = await fetch(file!.url);
  if (response.ok) return response.blob();
  throw new CheckpointError(
    `${file!.url}: the server answered ${response.status} ${response.statusText}`.trimEnd(),
  );
}
