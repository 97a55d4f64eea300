/**
 * Attribution patching: a patch map estimated by gradients, in two passes and one back, and how well.
 *
 *   npm run setup -- model
 *   node scripts/run-ts.mjs examples/attribution.ts [model] [clean prompt] [corrupted prompt]
 *
 * Both prompts need the same number of tokens and other answers. Without arguments: the shipped model, France in place of
 * Spain, and their capitals.
 */
import {
  attributionMap,
  compareMaps,
  loadModel,
  openDevice,
  type PairOptions,
  patchMap,
} from "../src/index.ts"; // in your own project: from "xpatch"

const examples = "Q: Greece\nA: Athens\n\nQ: Japan\nA: Tokyo\n\n";
const [ref = "xpatch:vlm", first = `${examples}Q: France\nA:`, second = `${examples}Q: Spain\nA:`] =
  process.argv.slice(2);

const device = await openDevice();
const model = await loadModel(ref, { device });
const [clean, corrupted] = [model.prompt(first), model.prompt(second)];

const maps: PairOptions[] = [{ sites: "resid_pre.2*" }, { sites: "z.2*", heads: true }];
for (const options of maps) {
  const name = [options.sites].flat().join(", ");
  const started = performance.now();
  const exact = await patchMap(model, clean, corrupted, options);
  console.log(`\n${name}: ${exact.values.flat().length} cells, exact in ${seconds(started)}`);
  for (const steps of [undefined, 4]) {
    const started = performance.now();
    const estimate = await attributionMap(model, clean, corrupted, { ...options, ...(steps && { steps }) });
    const compared = compareMaps(exact, estimate);
    console.log(`${estimate.estimated} in ${seconds(started)}`);
    console.log(`${compared}`.split("\n").slice(1).join("\n"));
  }
}

function seconds(started: number): string {
  return `${((performance.now() - started) / 1000).toFixed(1)} s`;
}

model.dispose();
await device.destroy();
