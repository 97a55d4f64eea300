import { beforeAll, expect, test } from "vitest";
import type { LabOptions } from "../../../experiments/framework/setting.ts";
import { settingOf } from "../../../experiments/framework/setting.ts";
import { loadModel } from "../../../src/patching/model.ts";
import type { Device } from "../../../src/tensor/device.ts";
import { testDevice } from "../../helpers/device.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** The hash that a run's setting has of a model. */
async function hashOf(ref: string, opened: { adapters?: string[]; base?: string } = {}): Promise<string> {
  using model = await loadModel(ref, { device, ...opened });
  const { model: found } = await settingOf({ model, opened, tasks: [], options: {} as LabOptions });
  return found.hash;
}

test("a model with adapters has another hash than without, and the same again", async () => {
  const base = await hashOf("weights/nano/base");
  const adapted = await hashOf("weights/nano/base", { adapters: ["weights/nano/llm"] });
  expect(adapted).not.toBe(base);
  expect(await hashOf("weights/nano/base", { adapters: ["weights/nano/llm"] })).toBe(adapted);
  // Put together by its own assembly.json, or by its adapter_config.json, from a base given: the adapters count there too.
  const assembled = await hashOf("weights/nano/llm", { base: "weights/nano/base" });
  expect(assembled).not.toBe(base);
});
