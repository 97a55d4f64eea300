import {
  aFunction,
  aKindOf,
  aListOf,
  aNumber,
  aString,
  checkArgument,
  checkOptions,
  type Expected,
  either,
  type Options,
  oneOf,
  showFound,
} from "../arguments.ts";
import { ArgumentError } from "../errors.ts";
import { LanguageModel, ModelOutline } from "../model/language-model.ts";
import { Prompt } from "../model/prompt/prompt.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { Edit, EditOperation } from "./edit.ts";
import type { Part, Tap, TapGroup, Taps } from "./tap.ts";

export const aModel = aKindOf(LanguageModel, "await loadModel(…)");
/** Where prompts are made, which needs no weights. */
export const aModelOutline = aKindOf(ModelOutline, "await loadModel(…)");
export const aPrompt = aKindOf(Prompt, "model.prompt(…) makes one");

/** Throws ArgumentError unless there are a model and a list of prompts, as `name`. */
export function checkModelAndPrompts(call: string, model: unknown, name: string, prompts: unknown): void {
  checkArgument(call, "model", model, aModel);
  checkArgument(call, name, prompts, aListOf(aPrompt));
}

/** Throws ArgumentError for what is neither a prompt nor a list of prompts. */
export function checkPrompts(call: string, input: unknown): void {
  if (Array.isArray(input)) checkArgument(call, "prompts", input, aListOf(aPrompt));
  else checkArgument(call, "prompt", input, aPrompt);
}

const aRange: Expected = {
  words: "{ start, end }, two whole numbers",
  holds: (value) => isObject(value) && Number.isInteger(value["start"]) && Number.isInteger(value["end"]),
};

export const somePositions: Expected = {
  words: 'a position, a list of them, { start, end }, { span: "name" }, a function of the prompt or "all"',
  holds: (value) =>
    value === "all" ||
    typeof value === "number" ||
    typeof value === "function" ||
    (Array.isArray(value) && value.every((position) => typeof position === "number")) ||
    aRange.holds(value) ||
    (isObject(value) && typeof value["span"] === "string"),
};

export const onePosition: Expected = {
  words: "a position or a function of the prompt",
  holds: (value) => typeof value === "number" || typeof value === "function",
};

const aValue: Expected = either(
  aKindOf(Tensor, "from a tap, or device.tensor(…)"),
  aListOf({ words: "a number", holds: (value) => typeof value === "number" }),
);

const PART: Options<Part> = { head: aNumber, features: aRange, image: aNumber };

/** Checked under the names below. */
const anything: Expected = { words: "anything", holds: () => true };

/** What an operation needs besides site and positions; `amount` by the name that its function calls it. */
const NEEDS: Record<
  EditOperation,
  { readonly value?: string; readonly amount?: string; readonly transform?: string }
> = {
  set: { value: "value" },
  add: { value: "value", amount: "scale" },
  scale: { amount: "factor" },
  zero: {},
  interpolate: { value: "value", amount: "t" },
  projectOut: { value: "direction" },
  projectOnto: { value: "direction" },
  transform: { transform: "fn" },
};

const SITE_AND_POSITIONS = { site: aString, at: somePositions };
const TAP: Options<Tap> = { kind: oneOf("tap", "gradient"), ...SITE_AND_POSITIONS, ...PART };
const GROUP: Options<TapGroup> = {
  kind: oneOf("tap", "gradient"),
  sites: aListOf(aString),
  at: somePositions,
  ...PART,
};
const EDIT: Options<Edit> = {
  kind: oneOf("edit"),
  operation: oneOf(...Object.keys(NEEDS)),
  ...SITE_AND_POSITIONS,
  value: anything,
  amount: anything,
  transform: anything,
  prompt: aNumber,
  ...PART,
};

/** What taps and edits take besides site, positions and value. */
export const TAP_OPTIONS = PART;
export const EDIT_OPTIONS: Options<Part & { prompt?: number }> = { ...PART, prompt: aNumber };

/** Throws ArgumentError for what is no tap; `call` says whose it is. Gradients have to be let in. */
export function checkTap(
  call: string,
  tap: unknown,
  { gradients = false } = {},
): asserts tap is Tap | TapGroup {
  if (isObject(tap) && tap["kind"] === "gradient" && !gradients) {
    throw new ArgumentError(
      `${call}: expected a tap, found a gradient; only \`run\` with a metric has gradients`,
    );
  }
  if (!isObject(tap) || (tap["kind"] !== "tap" && tap["kind"] !== "gradient")) {
    throw new ArgumentError(
      `${call}: expected a tap, as tap(site, positions) makes, found ${showFound(tap)}`,
    );
  }
  if ("sites" in tap) {
    checkOptions(call, tap, GROUP, { name: "the tap", required: ["sites", "at"] });
    if ((tap["sites"] as string[]).length > 0) return;
    throw new ArgumentError(`${call}: expected at least one site, found an empty list`);
  }
  checkOptions(call, tap, TAP, { name: "the tap", required: ["site", "at"] });
}

/** Throws ArgumentError for what is no edit, or lacks something. */
export function checkEdit(call: string, edit: unknown): asserts edit is Edit {
  if (!isObject(edit) || edit["kind"] !== "edit") {
    throw new ArgumentError(
      `${call}: expected an edit, as set(site, positions, value) makes, found ${showFound(edit)}`,
    );
  }
  checkOptions(call, edit, EDIT, { name: "the edit", required: ["operation", "site", "at"] });
  const { value, amount, transform } = NEEDS[edit["operation"] as EditOperation];
  if (value !== undefined) checkArgument(call, value, edit["value"], aValue);
  if (amount !== undefined)
    checkArgument(call, amount, edit["amount"] ?? (amount === "scale" ? 1 : undefined), aNumber);
  if (transform !== undefined) checkArgument(call, transform, edit["transform"], aFunction);
}

/** Throws ArgumentError for what is no list of edits. */
export function checkEdits(call: string, edits: unknown): asserts edits is readonly Edit[] {
  if (!Array.isArray(edits)) {
    throw new ArgumentError(`${call}: expected edits to be a list of edits, found ${showFound(edits)}`);
  }
  for (const [i, edit] of edits.entries()) checkEdit(`${call}, edits[${i}]`, edit);
}

/** Throws ArgumentError for what is no object of taps by name. */
export function checkTaps(call: string, taps: unknown, { gradients = false } = {}): asserts taps is Taps {
  if (!isObject(taps) || typeof taps["kind"] === "string") {
    throw new ArgumentError(
      `${call}: expected taps to be an object of taps by name, as in { x: tap(site) }, found ${showFound(taps)}`,
    );
  }
  for (const [name, tap] of Object.entries(taps)) checkTap(`${call}, taps.${name}`, tap, { gradients });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
