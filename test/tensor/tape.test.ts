import { beforeAll, expect, test } from "vitest";
import { scale, set, zero } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Device } from "../../src/tensor/device.ts";
import { apply, type OperationRecord } from "../../src/tensor/operation.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

// A tape of records is all that there is to a computation: played again over other token ids it gives what the model
// makes of those. Anything that reached a tensor without a record would leave the first prompt's numbers in it.

let device: Device;
let model: PatchableModel;

beforeAll(async () => {
  device = await testDevice();
  model = await fixtureModel("llama");
});

function record<T>(work: () => T): { result: T; tape: OperationRecord[] } {
  const tape: OperationRecord[] = [];
  const stop = device.observe((record) => tape.push(record));
  try {
    return { result: work(), tape };
  } finally {
    stop();
  }
}

/** Does all of it again, with other values where `bytesOf` has some for what was written; what `wanted` has become. */
function play(tape: readonly OperationRecord[], wanted: Tensor, bytesOf: (bytes: Uint8Array) => Uint8Array) {
  const again = new Map<Tensor, Tensor>();
  for (const { operation, inputs, attributes, output } of tape) {
    const now = inputs.map((input) => again.get(input) ?? input); // what is not on the tape are weights
    const changed =
      operation.name === "write"
        ? {
            ...(attributes as { bytes: Uint8Array }),
            bytes: bytesOf((attributes as { bytes: Uint8Array }).bytes),
          }
        : attributes;
    again.set(output, apply(operation, now, changed, device));
  }
  return again.get(wanted)!;
}

/** Those of `from`, wherever they were written, become those of `to`. */
const exchange = (from: readonly number[], to: readonly number[]) => {
  const [found, other] = [from, to].map((ids) => new Uint8Array(Uint32Array.from(ids).buffer));
  return (bytes: Uint8Array) => (bytes.join() === found!.join() ? other! : bytes);
};

test("of a run, with taps and edits", async () => {
  const [a, b] = [randomIds(9, 1), randomIds(9, 2)];
  const edits = [
    zero("pattern.1", 3),
    scale("resid_post.0", -1, 2),
    set("mlp_out.2", 4, new Float32Array(48)),
  ];
  const run = (ids: number[]) =>
    model.run(model.promptFromIds(ids), { taps: { z: tap("z.2", -1) }, edits, logits: "all" });
  const { result, tape } = record(() => run(a));
  const [expected, before] = [await run(b).logits!.read(), await result.logits!.read()];
  const replayed = device.scope(() => play(tape, result.logits!, exchange(a, b)));
  expect(await replayed.read()).toEqual(expected);
  expect(expected).not.toEqual(before);
});

test("of a generation, whose cache is changed in place", async () => {
  const [a, b] = [randomIds(9, 1), randomIds(9, 2)];
  const logits: Tensor[] = [];
  const tape: OperationRecord[] = [];
  const last = `f32[1, ${model.config.vocab}]`;
  const stop = device.observe((record) => {
    tape.push(record);
    if (`${record.output}` === last && !record.operation.memory) logits.push(record.output);
  });
  const generated = await model.generate(model.promptFromIds(a), { maxNewTokens: 3, stopIds: [] });
  stop();
  expect(tape.map(({ operation }) => operation.name)).toContain("scatterRowsInto");
  // The prompt is exchanged and the new tokens stay, so what is expected is the second prompt with the first's answer.
  const forced = [...b, ...generated.ids.slice(0, 2)];
  const expected = await model.run(model.promptFromIds(forced)).logits!.read();
  const replayed = device.scope(() => play(tape, logits.at(-1)!, exchange(a, b)));
  const found = await replayed.read();
  expect(found.length).toBe(expected.length);
  for (const [i, x] of found.entries()) expect(x).toBeCloseTo(expected[i]!, 4);
});
