import { platform } from "#platform";
import { type KernelChoice, KernelChoices } from "./kernel-choices.ts";

/** Goes up when kernels change so that old measurements say nothing. */
const VERSION = 1;

interface Note {
  readonly version: number;
  /** What was measured on, driver and all. */
  readonly adapter: string;
  readonly choices: Readonly<Record<string, KernelChoice>>;
}

/** Choices of the adapter of this name, which says its driver too, with what earlier devices have measured; what these measure is kept in turn. */
export async function storedChoices(adapter: string): Promise<KernelChoices> {
  const known = await knownChoices(adapter);
  return new KernelChoices({
    measures: true,
    known,
    async keep(choices) {
      const note: Note = {
        version: VERSION,
        adapter,
        // Other processes may have measured other classes meanwhile.
        choices: Object.fromEntries([...(await knownChoices(adapter)), ...choices]),
      };
      await platform.writeNote(noteName(adapter), `${JSON.stringify(note, null, 1)}\n`);
    },
  });
}

/** What has been measured on an adapter, by class of work; nothing where that cannot be read. */
export async function knownChoices(adapter: string): Promise<ReadonlyMap<string, KernelChoice>> {
  const text = await platform.readNote(noteName(adapter));
  try {
    const note = JSON.parse(text ?? "null") as Partial<Note> | null;
    if (note?.version !== VERSION || note.adapter !== adapter) return new Map();
    return new Map(Object.entries(note.choices ?? {}).filter(([, choice]) => isChoice(choice)));
  } catch {
    return new Map(); // it is measured again
  }
}

function isChoice(value: unknown): value is KernelChoice {
  const { kernel, us, rule, ruleUs } = (value ?? {}) as Record<string, unknown>;
  return (
    typeof kernel === "string" &&
    typeof rule === "string" &&
    typeof us === "number" &&
    typeof ruleUs === "number"
  );
}

function noteName(adapter: string): string {
  return `kernels-${adapter.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.json`;
}
