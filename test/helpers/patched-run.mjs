/**
 * What `xpatch` gives on two fixtures, as one line of JSON: for comparing the runtimes that it runs in. Everything that
 * touches the machine is in it: the driver, files, pictures, WebAssembly, tokenizers, the console, garbage collection.
 */
import { inspect } from "node:util";
import { loadImage, loadModel, openDevice, set, tap } from "xpatch";

const fixtures = new URL("../fixtures/", import.meta.url);
const device = await openDevice();
const results = {};
for (const name of ["llama", "llava"]) {
  const model = await loadModel(new URL(`${name}/model`, fixtures).href, { device });
  const picture = model.config.vision ? [await loadImage(new URL("images/formats/420.jpg", fixtures))] : [];
  const prompt = model.prompt([...picture, "Q: Norway\nA:"]);
  const other = model.prompt([...picture, "Q: Peru\nA:"]);
  const site = "resid_post.1";
  const { v } = model.run(prompt, { taps: { v: tap(site, -1) } });
  const { logits } = model.run(other, { edits: [set(site, -1, v)] });
  const { ids } = await model.generate(other, { maxNewTokens: 6, edits: [set(site, -1, v)] });
  const values = await logits.read();
  results[name] = { ids: [...prompt.ids], answer: [...ids], values: [...new Uint32Array(values.buffer)] };
  results[`${name} printed`] = inspect(logits);
}
console.log(JSON.stringify(results));
console.error(device.info.description);
// The device is left open on purpose: ending like this has to be clean too.
