import { test } from "vitest";
import { testDevice } from "./helpers/device.ts";
import { loadModel } from "../src/patching/model.ts";
import { tap } from "../src/patching/tap.ts";
import { GoldenFile } from "../src/cli/parity-golden.ts";
import { homedir } from "node:os";
import { readFileSync } from "node:fs";
test("x", async () => {
 for (const opts of [{}, {without:["shader-f16"]}, {kernels:"workgroup"}, {adapter:"swiftshader"}] as any[]) {
  const device = await testDevice(opts);
  const model = await loadModel(homedir()+"/.cache/xpatch/models/smollm2-135m-instruct", {device});
  const j = JSON.parse(readFileSync("test/fixtures/real/smollm2.json","utf8"));
  const g = await GoldenFile.open("test/fixtures/real/smollm2.golden.safetensors");
  for (const c of [0,1]) {
  const exp = (await g.read(`case${c}/resid_post.last`)).values as Float32Array;
  const L = 30, W=576;
  const taps = Object.fromEntries(Array.from({length:L},(_, l)=>[`${l}`, tap(`resid_post.${l}`,-1)]));
  const r = model.run(model.promptFromIds(j.cases[c].input_ids), {taps});
  let s = "";
  for (let l=0;l<L;l++) { const v = await (r as any)[l].read(); let d=0,n=0,m=0,mi=0; for (let i=0;i<W;i++){const e=exp[l*W+i]!;const x=Math.abs(v[i]-e); d+=x*x;n+=e*e;if(x>m){m=x;mi=i}} s+=` ${l}:${Math.sqrt(d/n).toExponential(1)}/${m.toExponential(1)}@${mi}(${exp[l*W+mi]!.toFixed(1)})`; }
  console.log(JSON.stringify(opts), c, s);
  }
  if (!opts.adapter && !opts.kernels && !opts.without) { const ids = j.cases[3].input_ids.filter((x:number)=>x!==2); console.log((await model.generate(model.promptFromIds(ids),{maxNewTokens:20,stopIds:[]})).ids.join(), j.cases[3].greedy_ids.join(), await model.tokenizer.idOf("<|im_end|>")); }
  model.dispose();
 }
});
