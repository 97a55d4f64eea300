import { attentionMaps, rolloutMaps } from "../../analysis/heads/attention-map.ts";
import { allLayers } from "../../analysis/layers.ts";
import { logitLens } from "../../analysis/lens/logit-lens.ts";
import { BATCH_TOKENS, batches } from "../../analysis/vectors/task-vectors.ts";
import { aListOf, aNumber, anObject, aString, checkArgument, checkOptions } from "../../arguments.ts";
import { ArgumentError } from "../../errors.ts";
import { isObject } from "../../model/checkpoint/json/config-reader.ts";
import type { LayerSite, SiteName } from "../../model/walk/sites.ts";
import { parseSite } from "../../model/walk/sites.ts";
import { resolvePositions } from "../../patching/positions.ts";
import { settingOf } from "../../patching/setting.ts";
import { tap } from "../../patching/tap.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { ParamsOf } from "../messages/requests.ts";
import type { AttentionMapAnswer } from "../messages/results.ts";
import type { ArraySpec, VectorUse } from "../messages/values.ts";
import { readEdits } from "../read/edits.ts";
import { readPrompt, readPrompts } from "../read/prompt.ts";
import type { Handler, Work } from "../read/work.ts";
import { modelOf } from "./models.ts";

export const lens: Handler<"lens"> = async (work, params) => {
  const model = modelOf(work, params.model);
  const prompt = await readPrompt(work, model, params.prompt);
  const { at = "all", site, k = 1 } = params;
  const layers = params.layers ?? allLayers(model);
  const scope = model.device.openScope();
  try {
    const edits = scope.enter(() => readEdits(work, model.device, "lens", params.edits));
    work.signal.throwIfAborted();
    const cells = await logitLens(model, prompt, {
      at,
      k,
      layers,
      edits,
      ...(site !== undefined && { site: site as LayerSite }),
      onProgress: (done) => work.progress({ phase: "layers", done, total: layers.length }),
    });
    const tokens = [...cells].flatMap((cell) => cell.tokens);
    return {
      setting: settingOf(model),
      layers: [...layers],
      positions: resolvePositions(at, model.sequenceOf(prompt)),
      k,
      ids: Uint32Array.from(tokens, ({ id }) => id),
      probabilities: Float32Array.from(tokens, ({ probability }) => probability),
      texts: Object.fromEntries(tokens.map(({ id, text }) => [id, text])),
    };
  } finally {
    scope.dispose();
  }
};

export const attention: Handler<"attention"> = async (work, params) => {
  const model = modelOf(work, params.model);
  const prompt = await readPrompt(work, model, params.prompt);
  const { at = -1, span, layers, heads = "mean" } = params;
  const options = { at, ...(span !== undefined && { span }), ...(layers && { layers }) };
  const maps =
    heads === "rollout"
      ? await rolloutMaps(model, prompt, {
          ...options,
          onProgress: (done) =>
            work.progress({ phase: "layers", done, total: 1 + Math.max(...(layers ?? allLayers(model))) }),
        })
      : await attentionMaps(model, prompt, { ...options, ...(heads !== "mean" && { head: heads }) });
  const [position] = resolvePositions(at, model.sequenceOf(prompt));
  return {
    setting: settingOf(model),
    position: position!,
    maps: maps.map(
      ({ layer, head, grid, weights, share }): AttentionMapAnswer => ({
        layer,
        ...(head !== undefined && { head }),
        grid,
        weights,
        share,
      }),
    ),
  };
};

export const activations: Handler<"activations"> = async (work, params) => {
  const model = modelOf(work, params.model);
  const prompts = await readPrompts(work, model, params.prompts);
  if (prompts.length === 0) throw new ArgumentError("activations: expected at least one prompt, found none");
  const { at = -1 } = params;
  const site = params.site as SiteName;
  parseSite(site);
  const { device } = model;
  const parts: Float32Array[] = [];
  let features = 0;
  let done = 0;
  for (const batch of batches(prompts, BATCH_TOKENS)) {
    using value: Tensor = device.scope(() => {
      const taps = { v: tap(site, at) };
      return (model.run(batch, { taps }) as unknown as { v: Tensor }).v;
    });
    if (value.rank !== 2)
      throw new ArgumentError(`activations: ${site} has no vector a prompt at one position`);
    features = value.dim(1);
    parts.push((await value.read()) as Float32Array);
    done += batch.length;
    work.progress({ phase: "prompts", done, total: prompts.length });
  }
  const data = new Float32Array(prompts.length * features);
  let start = 0;
  for (const part of parts) {
    data.set(part, start);
    start += part.length;
  }
  return { shape: [prompts.length, features], data };
};

/** Points that are laid out: t-SNE takes the square of their number. */
const MOST_POINTS = 1000;

export const project: Handler<"project"> = async (work, { points: given, method, seed = 0 }) => {
  const points = await pointsOf(work, given);
  const features = points[0]?.length ?? 0;
  if (points.length < 2 || points.length > MOST_POINTS || points.some(({ length }) => length !== features)) {
    throw new ArgumentError(
      `project: expected from 2 to ${MOST_POINTS} vectors of one length, found ${points.length}`,
    );
  }
  const data = new Float32Array(points.length * features);
  for (const [i, point] of points.entries()) data.set(point, i * features);
  return work.chores.plane(data, points.length, { method, seed });
};

async function pointsOf(work: Work, given: ParamsOf<"project">["points"]): Promise<Float32Array[]> {
  if (isObject(given) && "shape" in given) return rowsOf(given as unknown as ArraySpec);
  checkArgument("project", "points", given, aListOf(anObject));
  const tensors = (given as readonly VectorUse[]).map((point) => {
    checkOptions(
      "project",
      point,
      { vector: aString, layer: aNumber },
      { name: "a point", required: ["vector"] },
    );
    const stored = work.kept.get("vector", point.vector);
    const value = stored.rows.device.scope(() => stored.valueFor(point.layer));
    if (value.rank === 1) return value;
    value.dispose();
    throw new ArgumentError(`project: ${stored.words} has several positions, expected one`);
  });
  try {
    const arrays: Float32Array[] = [];
    for (const tensor of tensors) arrays.push((await tensor.read()) as Float32Array);
    return arrays;
  } finally {
    for (const tensor of tensors) tensor.dispose();
  }
}

function rowsOf({ shape, data }: ArraySpec): Float32Array[] {
  const [count = 0, features = 0] = Array.isArray(shape) && shape.length === 2 ? shape : [];
  const areWhole = [count, features].every((size) => Number.isInteger(size) && size > 0);
  if (!areWhole || !(data instanceof Float32Array) || data.length !== count * features) {
    throw new ArgumentError("project: expected { shape: [points, features], data } that go together");
  }
  return Array.from({ length: count }, (_, i) => data.subarray(i * features, (i + 1) * features));
}
