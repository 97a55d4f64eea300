import { InvalidArgumentError } from "commander";
import type { ControlVector } from "../../analysis/vectors/control-vector.ts";
import type { Edit } from "../../patching/edit.ts";
import { layers, number } from "./arguments.ts";

/** A control vector as named on the command line. */
export interface ControlArgument {
  readonly text: string;
  readonly file: string;
  readonly scale: number;
  readonly layers?: readonly number[];
}

export const CONTROL_HELP =
  "add a control vector of llama.cpp or repeng to every token: file.gguf[*scale][@layers], such as happy.gguf*1.5@10-20 (repeatable)";

/** Collects --control arguments. Throws InvalidArgumentError saying what is wrong with one. */
export function controlArgument(text: string, before: readonly ControlArgument[] = []): ControlArgument[] {
  const [, file, scale, chosen] = /^([^*@]+?)(?:\*([^@]+))?(?:@(.+))?$/.exec(text) ?? [];
  if (file === undefined) throw new InvalidArgumentError("Expected file.gguf[*scale][@layers].");
  return [
    ...before,
    {
      text,
      file,
      scale: scale === undefined ? 1 : number(scale),
      ...(chosen !== undefined && { layers: layers(chosen) }),
    },
  ];
}

/** @param length positions of the prompt and of the new tokens that are computed */
export function controlEdits(
  { scale, layers: some }: ControlArgument,
  vector: ControlVector,
  length: number,
): Edit[] {
  return vector.edits({ scale, layers: some, at: { start: 0, end: length } });
}

/** How reports name it. */
export function showControl({ file, scale, layers: some }: ControlArgument): string {
  const where = some === undefined ? "all its layers" : `layers ${some.join(", ")}`;
  return `add ${file} by ${scale}, ${where}, every token`;
}
