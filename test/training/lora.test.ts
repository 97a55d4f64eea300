import { expect, test } from "vitest";
import { checkModules, Lora } from "../../src/training/lora.ts";
import { Trainer } from "../../src/training/trainer.ts";
import { fixtureModel, randomIds, TEXT_FIXTURES } from "../helpers/model.ts";

test("those of a connector in front of the language model are not its own", async () => {
  const model = await fixtureModel("idefics2");
  using plain = new Lora(model, { modules: ["q_proj", "gate_proj"] });
  expect(new Set(plain.modules.map((name) => name.split(".")[1]))).toEqual(new Set(["text_model"]));
  using named = new Lora(model, { modules: ["connector.modality_projection.gate_proj"] });
  expect(named.modules).toEqual(["model.connector.modality_projection.gate_proj"]);
});

test("projections are the language model's unless they are named by a path to the vision side", async () => {
  const llava = await fixtureModel("llava");
  using plain = new Lora(llava, { modules: ["q_proj", "v_proj"] });
  expect(plain.modules.length).toBeGreaterThan(0);
  expect(plain.modules.filter((name) => name.includes("vision"))).toEqual([]);
  using trainer = new Trainer(llava, { parameters: plain.parameters });
  const { loss } = trainer.step([llava.promptFromIds(randomIds(6, 1))]);
  expect(await loss.item()).toBeGreaterThan(0);
  loss.dispose();
  const tower = "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj";
  using named = new Lora(llava, { modules: [tower] });
  expect(named.modules).toEqual([tower]);
});

test("what the headers say is enough to check names before weights are loaded", async () => {
  for (const name of [
    ...TEXT_FIXTURES,
    "t5",
    "fuyu",
    "idefics",
    "llava_next",
    "qwen2_vl",
    "blip2-opt",
    "mllama",
  ]) {
    const model = await fixtureModel(name);
    const linears = [...model.loaded.linears.keys()];
    expect(model.matrixNames, name).toEqual(expect.arrayContaining(linears));
    expect(() => checkModules("--lora", model.matrixNames, ["embed_tokens"]), name).toThrow(
      /no linear layer/,
    );
  }
});
