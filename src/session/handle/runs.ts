import { reach as reachedBy } from "../../patching/reached.ts";
import { record as recordRun } from "../../patching/recording.ts";
import { resume as resumeRun } from "../../patching/resume.ts";
import { settingOf } from "../../patching/setting.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Answer } from "../messages/results.ts";
import type { ArraySpec } from "../messages/values.ts";
import { readEdits, readTaps } from "../read/edits.ts";
import { readPrompt } from "../read/prompt.ts";
import type { Handler } from "../read/work.ts";
import { askTokens, asRows } from "./answers.ts";
import { modelOf } from "./models.ts";

export const run: Handler<"run"> = async (work, params) => {
  const model = modelOf(work, params.model);
  const prompt = await readPrompt(work, model, params.prompt);
  const { device } = model;
  const scope = device.openScope();
  try {
    const { tapped, asked } = scope.enter(() => {
      const edits = readEdits(work, device, "run", params.edits);
      const { logits, ...tapped } = model.run(prompt, { edits, taps: readTaps("run", params.taps) });
      return {
        tapped: flatTaps(tapped),
        asked: askTokens(model, asRows(logits!), params, () => "run"),
      };
    });
    const arrays = await device.read([...asked.tensors, ...tapped.map(([, tensor]) => tensor)]);
    const values = arrays.slice(asked.tensors.length);
    const taps = tapped.map(([name, { shape }], i): [string, ArraySpec] => [
      name,
      { shape: [...shape], data: values[i] as Float32Array },
    ]);
    return { setting: settingOf(model), ...asked.read(arrays)[0]!, taps: Object.fromEntries(taps) };
  } finally {
    scope.dispose();
  }
};

/** Taps by name; those of several sites under `<name>/<site>`. */
function flatTaps(tapped: Readonly<Record<string, unknown>>): [string, Tensor][] {
  return Object.entries(tapped).flatMap(([name, value]): [string, Tensor][] =>
    isTensor(value)
      ? [[name, value]]
      : Object.entries(value as Record<string, Tensor>).map(([site, tensor]) => [`${name}/${site}`, tensor]),
  );
}

function isTensor(value: unknown): value is Tensor {
  return typeof value === "object" && value !== null && "storage" in value;
}

export const record: Handler<"record"> = async (work, params) => {
  const { kept } = work;
  const shared = kept.get("model", params.model);
  const model = shared.loaded!;
  const prompt = await readPrompt(work, model, params.prompt);
  const { device } = model;
  const scope = device.openScope();
  const recording = scope.enter(() =>
    recordRun(model, [prompt], { edits: readEdits(work, device, "record", params.edits) }),
  );
  try {
    const asked = scope.enter(() => askTokens(model, recording.logits, params, () => "record"));
    const [answer] = asked.read(await device.read([...asked.tensors]));
    const handle = kept.add("recording", { recording, model: shared }, { free: () => recording.dispose() });
    return { setting: settingOf(model), recording: handle, ...answer!, rowLayers: recording.rowLayers };
  } catch (error) {
    recording.dispose();
    throw error;
  } finally {
    scope.dispose();
  }
};

export const resume: Handler<"resume"> = async (work, params) => {
  const { recording } = work.kept.get("recording", params.recording);
  const model = recording.model as ReturnType<typeof modelOf>;
  const { device } = model;
  const scope = device.openScope();
  try {
    const { asked, rowLayers, reached } = scope.enter(() => {
      const variants = params.variants.map((edits, i) => ({
        edits: readEdits(work, device, `resume, variants[${i}]`, edits),
      }));
      const resumed = resumeRun(recording, variants);
      return {
        rowLayers: resumed.rowLayers,
        reached: variants.map(({ edits }) => reachedBy(model, recording.prompts[0]!, edits)),
        asked: askTokens(model, resumed.logits, params, (row) => `resume, variants[${row}]`),
      };
    });
    const answers = asked.read(await device.read([...asked.tensors]));
    const ids = [...new Set(answers.flatMap(({ top }) => top.map(({ id }) => id)))];
    const recorded = scope.enter(() =>
      askTokens(model, recording.logits, { top: 1, track: ids }, () => "resume, the recorded pass"),
    );
    const [{ tracked }] = recorded.read(await device.read([...recorded.tensors])) as [Answer];
    const unpatched = new Map(tracked.map((each) => [each.id, each]));
    const variants = answers.map((answer, i) => ({
      ...answer,
      before: answer.top.map(({ id }) => unpatched.get(id)!),
      reach: reached[i]!,
    }));
    return { setting: settingOf(model), variants, rowLayers };
  } finally {
    scope.dispose();
  }
};

export const layers: Handler<"layers"> = async (work, params) => {
  const { recording } = work.kept.get("recording", params.recording);
  const model = recording.model as ReturnType<typeof modelOf>;
  const { device } = model;
  const among = params.layers ?? layersOfEdit(work, model.config.layers, params.edit);
  const scope = device.openScope();
  try {
    const { asked, rowLayers } = scope.enter(() => {
      const variants = among.map((layer) => {
        const own = { ...params.edit, site: `${params.edit.site}.${layer}` };
        return { edits: readEdits(work, device, `layers, layer ${layer}`, [...(params.edits ?? []), own]) };
      });
      const resumed = resumeRun(recording, variants);
      const where = (row: number) => `layers, layer ${among[row]}`;
      return { rowLayers: resumed.rowLayers, asked: askTokens(model, resumed.logits, params, where) };
    });
    const answers = asked.read(await device.read([...asked.tensors]));
    const each = answers.map((answer, i) => ({ layer: among[i]!, ...answer }));
    return { setting: settingOf(model), layers: each, rowLayers };
  } finally {
    scope.dispose();
  }
};

/** The layers that the edit's vector has, where it has one a layer; else all. */
function layersOfEdit(
  work: Parameters<Handler<"layers">>[0],
  count: number,
  { value }: Parameters<Handler<"layers">>[1]["edit"],
): readonly number[] {
  if (typeof value === "object" && value !== null && "vector" in value && value.layer === undefined) {
    const { from } = work.kept.get("vector", value.vector);
    if (from.kind === "layers") return from.origin.layers;
  }
  return Array.from({ length: count }, (_, layer) => layer);
}

export const generate: Handler<"generate"> = async (work, params) => {
  const model = modelOf(work, params.model);
  const prompt = await readPrompt(work, model, params.prompt);
  const { signal, progress } = work;
  const { model: _, prompt: __, edits: given, ...options } = params;
  const scope = model.device.openScope();
  try {
    const edits = scope.enter(() => readEdits(work, model.device, "generate", given));
    signal.throwIfAborted();
    let done = 0;
    const answer = await model.generate(prompt, {
      ...options,
      edits,
      onToken({ id, text }) {
        done += 1;
        progress({ phase: "token", done, total: params.maxNewTokens, token: { id, text } });
      },
    });
    return { setting: settingOf(model, params.seed), ...answer };
  } finally {
    scope.dispose();
  }
};

export const reach: Handler<"reach"> = async (work, params) => {
  const model = modelOf(work, params.model);
  const prompt = await readPrompt(work, model, params.prompt);
  return model.device.scope(() =>
    reachedBy(model, prompt, readEdits(work, model.device, "reach", params.edits)),
  );
};
