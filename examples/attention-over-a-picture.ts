/**
 * Where a vision-language model looks: attention from the last token to the picture's patches, layer by layer, drawn over
 * the picture as the model sees it.
 *
 *   npm run setup
 *   node scripts/run-ts.mjs examples/attention-over-a-picture.ts [model] [picture] [question] [file.svg]
 *
 * Without arguments it runs on the tiny random model of the tests, whose attention means nothing. `xpatch attend` does
 * the same from the command line.
 */
import { attentionFigure, attentionMaps, loadImage, loadModel, modelView, openDevice } from "../src/index.ts"; // in your own project: from "xpatch"

const [
  ref = "test/fixtures/llava/model",
  picture = "test/fixtures/images/photo.png",
  question = "What is shown in the image?",
  file = "attention.svg",
] = process.argv.slice(2);

const device = await openDevice();
const model = await loadModel(ref, { device });
const image = await loadImage(picture);
const prompt = model.prompt(`USER: <image>\n${question} ASSISTANT:`, { images: [image] });
const maps = await attentionMaps(model, prompt, { at: -1 });

for (const { layer, share } of maps) {
  console.log(`layer ${layer}: ${(100 * share).toFixed(1)} % of the attention is on the picture`);
}
const seen = modelView(image, model.config.vision!.processor);
await attentionFigure(maps, { picture: seen, lines: [prompt.text] }).save(file);
console.log(`written to ${file}`);
model.dispose();
await device.destroy();
