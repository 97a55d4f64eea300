import { Matrix } from "../../src/kernels/matmul/matrix.ts";
import type { Quantise } from "../../src/model/checkpoint/weights/quantise.ts";
import { decoderPartsOf } from "../../src/model/layers/named-weights.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { testDevice } from "./device.ts";

/** A fixture with its linear layers quantised, and the same model with the numbers that these stand for as f32. */
export async function quantisedFixture(
  name: string,
  quantise: Quantise,
): Promise<{ quantised: PatchableModel; unpacked: PatchableModel }> {
  const device = await testDevice();
  const path = `test/fixtures/${name}/model`;
  const quantised = await loadModel(path, { device, quantise });
  return { quantised, unpacked: await unpackedTwin(path, quantised) };
}

/** A checkpoint whose linear layers and embedding have the weights of another's as f32. */
export async function unpackedTwin(path: string, quantised: PatchableModel): Promise<PatchableModel> {
  const unpacked = await loadModel(path, { device: quantised.device });
  for (const [module, { layers }] of quantised.loaded.linears) {
    const others = unpacked.loaded.linears.get(module)!.layers;
    layers.forEach(({ layer }, i) => {
      const dense = layer.weight.dense();
      dense.scope?.forget(dense);
      const other = others[i]!.layer;
      other.separate();
      other.moveTo(dense, other.bias);
    });
  }
  const embedding = decoderPartsOf(quantised.network.stack).embedding.dense();
  embedding.scope?.forget(embedding);
  Object.assign(decoderPartsOf(unpacked.network.stack), { embedding: new Matrix(embedding) });
  return unpacked;
}
