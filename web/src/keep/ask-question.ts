import type { Setting } from "../../../src/patching/setting.ts";
import type { Answer } from "../../../src/session/messages/results.ts";
import type { EditSpec } from "../../../src/session/messages/values.ts";
import type { Asking } from "../ask.ts";
import { promptSpec } from "../prompts/prompt-spec.ts";
import { patchEdit } from "../vectors/patched.ts";
import { editSpecs, wantedBy } from "../views/lens/edit-specs.ts";
import { readSource } from "../views/lens/source-values.ts";
import type { Question } from "./questions.ts";

/** Likeliest tokens that are told of an answer. */
export const TOP = 5;

export type QuestionAnswer = Answer & { readonly setting: Setting };

/** Asks in one full pass, as a program of the library would. */
export async function askQuestion(
  asking: Asking,
  question: Question,
  width: number,
): Promise<QuestionAnswer> {
  const { client, model, signal } = asking;
  const edits = question.patch
    ? [await patchEdit(asking, question.patch)]
    : question.lens
      ? await lensEdits(asking, question.lens, width)
      : [];
  const prompt = await promptSpec(client, question.prompt);
  const { top, tracked, setting } = await client.run({ model, prompt, edits, top: TOP }, { signal });
  return { top, tracked, setting };
}

async function lensEdits(
  { client, model, signal }: Asking,
  { source, edits }: NonNullable<Question["lens"]>,
  width: number,
): Promise<EditSpec[]> {
  const wanted = wantedBy(edits);
  if (wanted.length === 0) return edits.flatMap((edit) => editSpecs(edit, nothing));
  const { prompt } = await client.encode({ model, prompt: await promptSpec(client, source) }, { signal });
  try {
    const key = `compare ${model} ${JSON.stringify(source)}`;
    const holds = await readSource({ client, model, prompt, key, signal }, wanted, width);
    return edits.flatMap((edit) => editSpecs(edit, holds));
  } finally {
    client.free([prompt]).catch(() => {});
  }
}

function nothing(): never {
  throw new Error("nothing is taken from the source");
}
