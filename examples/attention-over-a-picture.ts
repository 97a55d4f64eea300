/**
 * Where a vision-language model looks: attention from the last token to the picture's patches, layer by layer, drawn over
 * the picture as the model sees it.
 *
 *   npm run setup -- model
 *   node scripts/run-ts.mjs examples/attention-over-a-picture.ts [model] [picture] [prompt] [file.svg]
 *
 * Without arguments: the shipped model and a flag. `xpatch attend` does the same from the command line.
 */
import { attentionFigure, attentionMaps, loadImage, loadModel, modelView, openDevice } from "../src/index.ts"; // in your own project: from "xpatch"

const [
  ref = "xpatch:vlm",
  picture = "tasks/pictures/emojione/1f1e8-1f1e6.png",
  question = "Q:<image>\nA:",
  file = "attention.svg",
] = process.argv.slice(2);

const device = await openDevice();
const model = await loadModel(ref, { device });
const image = await loadImage(picture);
const prompt = model.prompt(question, { images: [image] });
const maps = await attentionMaps(model, prompt, { at: -1 });

for (const { layer, share } of maps) {
  console.log(`layer ${layer}: ${(100 * share).toFixed(1)} % of the attention is on the picture`);
}
const most = maps.reduce((a, b) => (b.share > a.share ? b : a));
console.log(`The last token looks at the picture most in layer ${most.layer}.`);
const seen = modelView(image, model.config.vision!.processor);
await attentionFigure(maps, { picture: seen, lines: [prompt.text] }).save(file);
console.log(`written to ${file}`);
model.dispose();
await device.destroy();
