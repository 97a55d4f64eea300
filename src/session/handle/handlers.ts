import {
  aBoolean,
  aKindOf,
  aListOf,
  aNumber,
  anArray,
  anObject,
  aString,
  type Expected,
  either,
  type Options,
  oneOf,
} from "../../arguments.ts";
import { SPLITS } from "../../tasks/task.ts";
import type { ParamsOf, RequestName } from "../messages/requests.ts";
import type { Handler } from "../read/work.ts";
import { aTop, someIds } from "./answers.ts";
import { adapters, free, load, models, unload } from "./models.ts";
import { encode, picture } from "./prompts.ts";
import { generate, layers, reach, record, resume, run } from "./runs.ts";
import { sweep, taskPicture, tasks } from "./tasks.ts";
import { freeVector, loadVector, makeVector, mixVectors, readVector, saveVector } from "./vectors.ts";
import { activations, attention, lens, project } from "./views.ts";

/** Whether a request waits for its turn on the device, or is answered at once. */
export type Lane = "device" | "now";

interface Entry<Name extends RequestName> {
  readonly lane: Lane;
  readonly carryOut: Handler<Name>;
  readonly known?: Options<ParamsOf<Name>>;
  readonly required?: readonly (keyof ParamsOf<Name> & string)[];
}

/** What its reader checks, with better words. */
const anything: Expected = { words: "anything", holds: () => true };
const aHandle = aString;
const aPrompt: Expected = either(aString, anObject);
const answering = { top: aTop, track: someIds };
const layerList = aListOf(aNumber);

/** Every request but hello: how it is carried out, and what it takes. */
export const HANDLERS: { readonly [Name in Exclude<RequestName, "hello">]: Entry<Name> } = {
  adapters: { lane: "now", carryOut: adapters, known: {} },
  models: { lane: "now", carryOut: models, known: {} },
  load: { lane: "now", carryOut: load },
  unload: { lane: "device", carryOut: unload, known: { model: aHandle }, required: ["model"] },
  free: { lane: "device", carryOut: free, known: { handles: aListOf(aString) }, required: ["handles"] },
  picture: { lane: "now", carryOut: picture, known: { image: anything }, required: ["image"] },
  encode: {
    lane: "now",
    carryOut: encode,
    known: { model: aHandle, prompt: aPrompt, views: aBoolean },
    required: ["model", "prompt"],
  },
  run: {
    lane: "device",
    carryOut: run,
    known: { model: aHandle, prompt: aPrompt, edits: anArray, taps: anObject, ...answering },
    required: ["model", "prompt"],
  },
  record: {
    lane: "device",
    carryOut: record,
    known: { model: aHandle, prompt: aPrompt, edits: anArray, ...answering },
    required: ["model", "prompt"],
  },
  resume: {
    lane: "device",
    carryOut: resume,
    known: { recording: aHandle, variants: aListOf(anArray), ...answering },
    required: ["recording", "variants"],
  },
  layers: {
    lane: "device",
    carryOut: layers,
    known: { recording: aHandle, edit: anObject, edits: anArray, layers: layerList, ...answering },
    required: ["recording", "edit"],
  },
  generate: {
    lane: "device",
    carryOut: generate,
    // The others are checked, in words, by `model.generate`.
    known: {
      model: aHandle,
      prompt: aPrompt,
      edits: anArray,
      maxNewTokens: aNumber,
      temperature: anything,
      topK: anything,
      topP: anything,
      seed: aNumber,
      stopIds: someIds,
    },
    required: ["model", "prompt", "maxNewTokens"],
  },
  lens: {
    lane: "device",
    carryOut: lens,
    known: {
      model: aHandle,
      prompt: aPrompt,
      edits: anArray,
      site: aString,
      at: anything,
      layers: layerList,
      k: aTop,
    },
    required: ["model", "prompt"],
  },
  reach: {
    lane: "now",
    carryOut: reach,
    known: { model: aHandle, prompt: aPrompt, edits: anArray },
    required: ["model", "prompt", "edits"],
  },
  attention: {
    lane: "device",
    carryOut: attention,
    known: {
      model: aHandle,
      prompt: aPrompt,
      at: aNumber,
      span: aString,
      layers: layerList,
      heads: either(oneOf("mean", "each", "rollout"), aNumber),
    },
    required: ["model", "prompt"],
  },
  "vector.make": {
    lane: "device",
    carryOut: makeVector,
    known: { model: aHandle, recipe: anObject },
    required: ["model", "recipe"],
  },
  "vector.mix": { lane: "device", carryOut: mixVectors, known: { vectors: anArray }, required: ["vectors"] },
  "vector.read": { lane: "device", carryOut: readVector, known: { vector: aHandle }, required: ["vector"] },
  "vector.save": { lane: "device", carryOut: saveVector, known: { vector: aHandle }, required: ["vector"] },
  "vector.load": {
    lane: "device",
    carryOut: loadVector,
    known: { model: aHandle, bytes: aKindOf(Uint8Array, "a file's bytes"), name: aString },
    required: ["model", "bytes"],
  },
  "vector.free": { lane: "device", carryOut: freeVector, known: { vector: aHandle }, required: ["vector"] },
  project: {
    lane: "now",
    carryOut: project,
    known: { points: anything, method: oneOf("pca", "tsne"), seed: aNumber },
    required: ["points", "method"],
  },
  activations: {
    lane: "device",
    carryOut: activations,
    known: { model: aHandle, prompts: anArray, site: aString, at: aNumber },
    required: ["model", "prompts", "site"],
  },
  tasks: { lane: "now", carryOut: tasks, known: {} },
  "task.picture": {
    lane: "now",
    carryOut: taskPicture,
    known: { task: anything, input: aString },
    required: ["task", "input"],
  },
  sweep: {
    lane: "device",
    carryOut: sweep,
    known: {
      model: aHandle,
      vector: aHandle,
      task: anything,
      split: oneOf(...SPLITS),
      asked: oneOf("text", "image"),
      items: aNumber,
      layers: layerList,
      specify: anything,
      template: aString,
    },
    required: ["model", "vector", "task"],
  },
};
