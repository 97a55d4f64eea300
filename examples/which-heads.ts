/**
 * Activation patching: where in the model, and by which heads, one word of a prompt decides the answer.
 *
 *   npm run setup -- model
 *   node scripts/run-ts.mjs examples/which-heads.ts [model] [clean prompt] [corrupted prompt]
 *
 * Both prompts need the same number of tokens and other answers. Without arguments: the shipped model, France in place of
 * Spain, and their capitals.
 */
import { headPattern, loadModel, logitAttribution, openDevice, patchMap, rankHeads } from "../src/index.ts"; // in your own project: from "xpatch"

const examples = "Q: Greece\nA: Athens\n\nQ: Japan\nA: Tokyo\n\n";
const [ref = "xpatch:vlm", first = `${examples}Q: France\nA:`, second = `${examples}Q: Spain\nA:`] =
  process.argv.slice(2);

const device = await openDevice();
const model = await loadModel(ref, { device });
const [clean, corrupted] = [model.prompt(first), model.prompt(second)];

// Each cell: the corrupted prompt with the clean one's residual stream at one layer and token.
const map = await patchMap(model, clean, corrupted);
console.log(map);

// Between which layers the last token gets what decides the answer, and which of the heads there bring it.
const last = map.effects.map((row) => row.at(-1)!);
const gains = last.slice(1).map((effect, layer) => effect - last[layer]!);
const layer = gains.indexOf(Math.max(...gains));
console.log(`\nMost of it comes to the last token in layer ${layer}. Its heads, patched one at a time:`);
const ranking = await rankHeads(model, clean, corrupted, { sites: `z.${layer}` });
console.log(ranking);

const { head } = ranking.heads[0]!;
const [looked] = (await headPattern(model, clean, { layer, head })).top(-1, 1);
const share = (100 * looked!.weight).toFixed(0);
console.log(
  `\nHead ${layer}.${head} looks at ${JSON.stringify(looked!.token)} from the last token, with ${share} %.\n`,
);

// What the parts of the model write towards the clean prompt's answer.
const answer = (await model.generate(clean, { maxNewTokens: 1, stopIds: [] })).ids[0]!;
console.log(await logitAttribution(model, clean, { answer }));

model.dispose();
await device.destroy();
