/**
 * Cross-modal patching: what a model has understood from text makes it answer about a picture. A task vector is the
 * residual stream at the last token of text prompts that show the task, their mean; put into the same layer at the last
 * token of a prompt with a picture, it says what to do with the picture (Luo et al. 2025, "Vision-Language Models Create
 * Cross-Modal Task Representations").
 *
 *   npm run setup -- model
 *   node scripts/run-ts.mjs examples/cross-modal-patching.ts [model] [picture] [layer]
 *
 * Without arguments: the shipped model, the flag of Portugal, and the task country → capital.
 */
import { extractTaskVectors, loadImage, loadModel, openDevice, patchOf } from "../src/index.ts"; // in your own project: from "xpatch"

const [ref = "xpatch:vlm", picture = "tasks/pictures/twemoji/1f1f5-1f1f9.png", layer = "21"] =
  process.argv.slice(2);

const device = await openDevice();
const model = await loadModel(ref, { device });

// Each prompt shows four of the pairs and asks about another.
const pairs = [
  ["Spain", "Madrid"],
  ["Japan", "Tokyo"],
  ["Egypt", "Cairo"],
  ["Norway", "Oslo"],
  ["Italy", "Rome"],
  ["Kenya", "Nairobi"],
  ["Cuba", "Havana"],
  ["France", "Paris"],
] as const;
const shots = pairs.map(([asked], i) => {
  const shown = [1, 2, 3, 4].map((step) => pairs[(i + step) % pairs.length]!);
  return model.prompt(`${shown.map(([q, a]) => `Q: ${q}\nA: ${a}\n\n`).join("")}Q: ${asked}\nA:`);
});
const vectors = extractTaskVectors(model, shots);

const query = model.prompt(["Q:", await loadImage(picture), "\nA:"]);
const plain = await model.generate(query, { maxNewTokens: 1 });
const patched = await model.generate(query, { maxNewTokens: 1, edits: [patchOf(vectors, Number(layer))] });

const { start, end } = query.span("image");
console.log(`The picture ${picture} takes positions ${start} to ${end - 1} of ${query.length}.`);
console.log(`Asked about it, the model says          ${JSON.stringify(plain.text)}`);
console.log(`with the vector of country → capital    ${JSON.stringify(patched.text)}`);
model.dispose();
await device.destroy();
