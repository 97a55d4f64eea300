import { expect, test } from "vitest";
import { loadImage } from "../../../src/images/files/load.ts";
import { publishedName } from "../../../src/model/checkpoint/entries/module-names.ts";
import { openCheckpoint } from "../../../src/model/checkpoint/open-checkpoint.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { exportModel } from "../../../src/model/export/export.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import { collect } from "../../helpers/bytes.ts";
import { fixtureFiles } from "../../helpers/checkpoints.ts";
import { testDevice } from "../../helpers/device.ts";
import { fixtureModel } from "../../helpers/model.ts";

const PROCESSORS = {
  llava: "LlavaProcessor",
  llava_next: "LlavaNextProcessor",
  paligemma: "PaliGemmaProcessor",
  gemma3: "Gemma3Processor",
  llava_onevision: "LlavaOnevisionProcessor",
};

async function logitsOf(model: PatchableModel): Promise<Float32Array> {
  const image = await loadImage("test/fixtures/images/photo.png");
  return await model.run(model.prompt([{ image }, "Q:"])).logits!.read();
}

test.each(Object.entries(PROCESSORS))(
  "%s, exported, gives the very same logits; where there was no processor_config.json there is %s's",
  async (name, processor) => {
    const device = await testDevice();
    const given = fixtureFiles(name);
    given.delete("processor_config.json");
    const files = new Map<string, Uint8Array>();
    const sink = {
      async write(path: string, chunks: AsyncIterable<Uint8Array>) {
        files.set(path, await collect(chunks));
      },
    };
    await using checkpoint = await openCheckpoint(memoryFolder(given, name));
    await exportModel(checkpoint, device, sink);
    using after = await loadModel(memoryFolder(files), { device });
    expect(await logitsOf(after)).toEqual(await logitsOf(await fixtureModel(name)));
    const written = JSON.parse(new TextDecoder().decode(files.get("processor_config.json")));
    expect(written.processor_class).toBe(processor);
  },
);

test("the feature behind rows of LLaVA-NeXT has its published name, whoever saved it", () => {
  for (const name of ["image_newline", "model.image_newline"])
    expect(publishedName(name)).toBe("image_newline");
});
