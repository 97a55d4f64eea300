import { expect, test } from "vitest";
import { logitDifference, mul, SiteError, scale, tanh, tap, transform } from "../../src/index.ts";
import { resume } from "../../src/patching/resume.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, expectSame } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds, readAll } from "../helpers/model.ts";

const CLOSE = { atol: 1e-5, rtol: 1e-5 };
const model = await fixtureModel("llama");
const [prompt, other] = [9, 12].map((n) => model.promptFromIds(randomIds(n, n)));
const curved = (x: Tensor) => mul(x, tanh(x));

test("the rows become what the function makes of them, and no others", async () => {
  const taps = { x: tap("mlp_out.1") };
  const before = await model.run(prompt!, { taps }).x.read();
  const after = await model.run(prompt!, { taps, edits: [transform("mlp_out.1", [2, -1], curved)] }).x.read();
  const { width } = model.config;
  const edited = new Set([2, prompt!.last]);
  const expected = before.map((x, i) => (edited.has(Math.floor(i / width)) ? x * Math.tanh(x) : x));
  expectClose(after, expected, CLOSE);
});

test("of a head or some features only these go through it, in batches each prompt's own rows", async () => {
  const edits = [
    transform("z.1", "all", (x) => mul(x, 3), { head: 1 }),
    transform("mlp_act.0", -1, (x) => mul(x, -2), { features: { start: 3, end: 20 }, prompt: 1 }),
  ];
  const plain = [
    scale("z.1", "all", 3, { head: 1 }),
    scale("mlp_act.0", -1, -2, { features: { start: 3, end: 20 }, prompt: 1 }),
  ];
  const [made, expected] = [edits, plain].map(
    (each) => model.run([prompt!, other!], { edits: each }).logits!,
  );
  const [found, wanted] = await model.device.read([made as Tensor<"f32">, expected as Tensor<"f32">]);
  expectSame(found!, wanted!, "logits");
});

test("resumed runs and generation give what full runs give", async () => {
  const variants = [0, 1, 2].map((layer) => ({ edits: [transform(`resid_post.${layer}`, [4, -1], curved)] }));
  using recording = model.record(prompt!);
  const { logits, rowLayers } = resume(recording, variants);
  expect(rowLayers).toBe((prompt!.length - 4) * (2 + 1));
  const resumed = await logits.read();
  const full = await Promise.all(variants.map(({ edits }) => model.run(prompt!, { edits }).logits!.read()));
  expectClose(
    resumed,
    full.flatMap((each) => [...each]),
    CLOSE,
  );
  const edits = [transform("resid_post.0", prompt!.length, (x) => mul(x, 4))];
  const options = { maxNewTokens: 3, stopIds: [] };
  const { ids } = await model.generate(prompt!, { ...options, edits });
  expect(ids).toEqual(
    (await model.generate(prompt!, { ...options, edits: [scale("resid_post.0", prompt!.length, 4)] })).ids,
  );
});

test("gradients go through it", async () => {
  const metric = logitDifference(30, 40);
  const ask = (edits: Parameters<typeof model.run>[1]) =>
    model
      .gradients(prompt!, metric, { ...edits, of: "resid_post.0", at: -1 })
      .gradients["resid_post.0"]!.read();
  const own = await ask({ edits: [transform("resid_post.1", "all", (x) => mul(x, 0.5))] });
  expectClose(own, await ask({ edits: [scale("resid_post.1", "all", 0.5)] }), CLOSE);
});

test("what does not go in the place of the rows is refused, and scores are beforehand", async () => {
  const run = (edit: ReturnType<typeof transform>) => () => model.run(prompt!, { edits: [edit] });
  expect(run(transform("resid_post.1", -1, (x) => x.at(0)))).toThrow(
    /^transform at resid_post\.1, position -1: expected the function to give \[1, 48\], found f32 \[48\]$/,
  );
  expect(run(transform("resid_post.1", -1, () => 3 as never))).toThrow(/found the number 3$/);
  expect(run(transform("pattern.0", -1, curved))).toThrow(SiteError);
  expect(run(transform("pattern.0", -1, curved))).toThrow(/scores and patterns take no function/);
  expect(() => transform("resid_post.1", -1, 3 as never)).toThrow(
    /expected fn to be a function, found the number 3/,
  );
  const device = await testDevice({ kernels: "workgroup" });
  if (device !== model.device) {
    expect(run(transform("resid_post.1", -1, () => device.zeros([1, 48])))).toThrow(/another device/);
  }
});

test("it frees what the function makes", async () => {
  const edits = [transform("resid_post.1", "all", curved)];
  const bytes = async () => {
    const { logits } = await readAll({ logits: model.run(prompt!, { edits }).logits });
    expect(logits.length).toBe(model.config.vocab);
    return model.device.memory.liveBytes;
  };
  expect(await bytes()).toBe(await bytes());
});
