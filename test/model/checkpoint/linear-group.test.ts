import { beforeAll, describe, expect, test } from "vitest";
import type { Linear } from "../../../src/model/checkpoint/weights/linear-layer.ts";
import { loadModel } from "../../../src/patching/model.ts";
import { tap } from "../../../src/patching/tap.ts";
import type { Device } from "../../../src/tensor/device.ts";
import type { DeviceOptions } from "../../../src/tensor/open-device.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { testDevice } from "../../helpers/device.ts";
import { randomIds } from "../../helpers/model.ts";

const styles: [string, DeviceOptions][] = [
  ["register", { kernels: "register" }],
  ["workgroup", { kernels: "workgroup" }],
];

describe.each(styles)("layers that read the same rows, %s kernels", (_name, options) => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice(options);
  });

  test.each(["llama", "llama-biases", "gpt2", "qwen2"])(
    "%s: are one product, and by themselves again where one is to be changed",
    async (name) => {
      const model = await loadModel(`test/fixtures/${name}/model`, { device });
      const prompt = model.promptFromIds(randomIds(7, 3));
      const logits = async () => {
        const before = device.counters.dispatches;
        const { logits } = model.run(prompt, { logits: "all" });
        const dispatches = device.counters.dispatches - before;
        const values = (await logits!.read()) as Float32Array;
        logits!.dispose();
        return { values, dispatches };
      };
      const layers: Linear[] = [...model.loaded.linears.values()].flatMap((module) =>
        module.layers.map(({ layer }) => layer),
      );
      const dense = async () => {
        const tensors = layers.map((layer) => layer.dense());
        const values = await device.read(tensors);
        for (const tensor of tensors) tensor.dispose();
        return values;
      };
      const [together, weights] = [await logits(), await dense()];
      const { liveBytes } = device.memory;
      for (const layer of layers) layer.separate();
      expect(await dense()).toEqual(weights);
      // The same numbers in more buffers, which are rounded up.
      expect(Math.abs(device.memory.liveBytes / liveBytes - 1)).toBeLessThan(0.05);
      const apart = await logits();
      expect(apart.values).toEqual(together.values);
      expect(apart.dispatches).toBeGreaterThan(together.dispatches);
      model.dispose();
    },
  );

  test("an adapter changes its own layer alone", async () => {
    const model = await loadModel("test/fixtures/llama/model", { device });
    const prompt = model.promptFromIds(randomIds(7, 3));
    const sites = ["q.0", "k.0", "v.0", "mlp_pre.0", "mlp_act.0"] as const;
    const values = async () => {
      const taps = Object.fromEntries(sites.map((site) => [site, tap(site)]));
      const found = model.run(prompt, { taps }) as unknown as Record<string, Tensor>;
      const read = await device.read(sites.map((site) => found[site]!));
      return read.map((each) => [...(each as Float32Array)]);
    };
    const before = await values();
    const width = model.config.width;
    const layer = model.loaded.linears.get("model.layers.0.self_attn.k_proj")!.layers[0]!.layer;
    const update = {
      a: device.tensor(new Float32Array(width).fill(0.1), { shape: [1, width] }),
      b: device.tensor(new Float32Array(layer.weight.shape[0]).fill(0.2), {
        shape: [layer.weight.shape[0], 1],
      }),
      scale: 1,
    };
    const undo = layer.adapt(update);
    const adapted = await values();
    undo();
    const changed = before.map((each, i) => each.join() !== adapted[i]!.join());
    // Keys first, and with them what follows the attention.
    expect(changed).toEqual([false, true, false, true, true]);
    expect(await values()).toEqual(before);
    model.dispose();
  });
});
