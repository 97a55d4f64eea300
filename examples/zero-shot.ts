/**
 * Zero-shot classification with CLIP (Radford et al. 2021): the label whose text lies nearest to the picture.
 *
 *   npm run setup
 *   node scripts/run-ts.mjs examples/zero-shot.ts [model] [picture] [label…]
 *
 * Without arguments it runs on the tiny random model of the tests, whose answers mean nothing; try
 * `openai/clip-vit-base-patch32`.
 */
import { loadDualEncoder, loadImage, openDevice, softmax } from "../src/index.ts"; // in your own project: from "xpatch"

const [ref = "test/fixtures/clip/model", picture = "test/fixtures/images/photo.png", ...given] =
  process.argv.slice(2);
const labels = given.length > 0 ? given : ["dog", "cat", "river"];

const device = await openDevice();
const clip = await loadDualEncoder(ref, { device });
const images = clip.images([await loadImage(picture)]);
const texts = clip.texts(labels.map((label) => `a photo of a ${label}`));
const probabilities = await softmax(clip.similarity(images.embeds, texts.embeds)).read();

labels.forEach((label, i) => {
  console.log(`${(100 * probabilities[i]!).toFixed(1).padStart(5)} %  ${label}`);
});
clip.dispose();
await device.destroy();
