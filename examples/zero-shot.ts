/**
 * Zero-shot classification: which of some labels fits a picture best. A vision-language model has a probability for each of
 * them as the answer to the picture, that of all its tokens. CLIP compares embeddings instead: see "Pictures" in
 * docs/patching.md.
 *
 *   npm run setup -- model
 *   node scripts/run-ts.mjs examples/zero-shot.ts [model] [picture] [label…]
 *
 * Without arguments: the shipped model, a flag, and countries.
 */
import { loadImage, loadModel, logSoftmax, openDevice, tap } from "../src/index.ts"; // in your own project: from "xpatch"

const [ref = "xpatch:vlm", picture = "tasks/pictures/emojione/1f1e8-1f1e6.png", ...given] =
  process.argv.slice(2);
const labels = given.length > 0 ? given : ["Canada", "Denmark", "Switzerland", "Peru"];

const device = await openDevice();
const model = await loadModel(ref, { device });
const image = await loadImage(picture);
const question = model.prompt(["Q:", image, "\nA:"]);
const answered = labels.map((label) => model.prompt(["Q:", image, "\nA:", ` ${label}`]));
const { all } = model.run(answered, { taps: { all: tap("logits") } });

const scores = await Promise.all(
  answered.map(async ({ ids, length }, i) => {
    const logProbabilities = await logSoftmax(all[i]!).read(); // [tokens, vocab]
    const vocab = logProbabilities.length / length;
    // Each token of the label, by the logits of the token in front of it.
    const tokens = ids.slice(question.length).map((id, t) => (question.length + t - 1) * vocab + id);
    return Math.exp(tokens.reduce((sum, at) => sum + logProbabilities[at]!, 0));
  }),
);
const total = scores.reduce((a, b) => a + b);
console.log(`${picture} is, of these,`);
labels.forEach((label, i) => {
  console.log(`${((100 * scores[i]!) / total).toFixed(1).padStart(5)} %  ${label}`);
});
model.dispose();
await device.destroy();
