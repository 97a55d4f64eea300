/**
 * Activation patching: where in the model, and by which heads, one word of a prompt decides the answer.
 *
 *   npm run setup -- model
 *   node scripts/run-ts.mjs examples/which-heads.ts [model] [clean prompt] [corrupted prompt]
 *
 * Both prompts need the same number of tokens and other answers. Without arguments it runs on the tiny random model of the tests,
 * whose answers mean nothing; try `xpatch:smollm2`, where a single head carries the country
 * to the end of the prompt.
 */
import { loadModel, logitAttribution, openDevice, patchMap, rankHeads } from "../src/index.ts"; // in your own project: from "xpatch"

const examples = "Q: Greece\nA: Athens\n\nQ: Japan\nA: Tokyo\n\n";
const [
  ref = "test/fixtures/llama/model",
  first = `${examples}Q: France\nA:`,
  second = `${examples}Q: Spain\nA:`,
] = process.argv.slice(2);

const device = await openDevice();
const model = await loadModel(ref, { device });
const [clean, corrupted] = [model.prompt(first), model.prompt(second)];

// Each cell: the corrupted prompt with the clean one's residual stream at one layer and token.
console.log(await patchMap(model, clean, corrupted));

// Each head by itself, at all tokens from the first on that differs.
const ranking = await rankHeads(model, clean, corrupted);
console.log(ranking);

// What the parts of the model write towards the clean prompt's answer.
const answer = (await model.generate(clean, { maxNewTokens: 1, stopIds: [] })).ids[0]!;
console.log(await logitAttribution(model, clean, { answer }));

model.dispose();
await device.destroy();
