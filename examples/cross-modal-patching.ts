/**
 * Cross-modal patching: what a model has understood from text makes it answer about a picture. A task vector is the
 * residual stream at the last token of a text prompt that shows the task; put into the same layer at the last token of a
 * prompt with a picture, it says what to do with the picture (Luo et al. 2025, "Vision-Language Models Create
 * Cross-Modal Task Representations").
 *
 *   npm run setup
 *   node scripts/run-ts.mjs examples/cross-modal-patching.ts [model] [picture] [layer]
 *
 * Without arguments it runs on the tiny random model of the tests, whose answers mean nothing.
 */
import { loadImage, loadModel, openDevice, set, tap } from "../src/index.ts"; // in your own project: from "xpatch"

const [ref = "test/fixtures/llava/model", picture = "test/fixtures/images/photo.png", layer = "1"] =
  process.argv.slice(2);

const device = await openDevice();
const model = await loadModel(ref, { device });
const site = `resid_post.${Number(layer)}` as const;

const shots = model.prompt("Q:Greece\nA:Athens\n\nQ:Japan\nA:Tokyo\n\nQ:Italy\nA:");
const { v } = model.run(shots, { taps: { v: tap(site, -1) }, stopAfter: Number(layer) });

const query = model.prompt(["Q:", await loadImage(picture), "\nA:"]);
const plain = await model.generate(query, { maxNewTokens: 8 });
const patched = await model.generate(query, { maxNewTokens: 8, edits: [set(site, query.last, v)] });

console.log(`the picture takes positions ${query.spans.image?.start} to ${query.spans.image!.end - 1}`);
console.log(`without the patch  ${JSON.stringify(plain.text)}`);
console.log(`with the patch     ${JSON.stringify(patched.text)}`);
model.dispose();
await device.destroy();
