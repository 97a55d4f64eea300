import type { SiteName } from "../model/walk/sites.ts";
import type { PatchableModel } from "../patching/model.ts";
import { tap } from "../patching/tap.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { CaseFolder } from "./case-folder.ts";
import { type Check, checkEqual, checkTensor } from "./checks.ts";
import type { TextCase } from "./text-cases.ts";
import { OMITTED } from "./thinned.ts";

/**
 * The blocks of gated cross-attention: which images each token sees, patterns of the tokens that see one, gates, and what
 * attention and MLP add. The goldens have the latter before the gates, so they are gated here.
 */
export async function checkCrossAttention(
  folder: CaseFolder,
  { name, prompts, columns }: TextCase,
  model: PatchableModel,
): Promise<Check[]> {
  const { goldens, tolerance } = folder;
  const { cross } = model.sites.text;
  if (!cross || cross.replaces) return []; // see checkCrossLayers
  const checks: Check[] = [];
  const seen = prompts.map((prompt) => imagesSeen(prompt, model));
  const mask = `${name}/in.image_attention_mask`;
  if (goldens.has(mask)) {
    const { shape, values } = await goldens.read(mask, 3);
    const [, rows, images] = shape as [number, number, number];
    const theirs = columns.map((own, b) =>
      own.map((column) => {
        const at = (b * rows + column) * images;
        return [...values.subarray(at, at + images)].flatMap((sees, image) => (sees ? [image] : []));
      }),
    );
    checks.push(checkEqual(mask, seen.flat(), theirs.flat()));
  }
  if (prompts.length !== 1) return checks;
  const [prompt, open] = [prompts[0]!, seen[0]!.map((images) => Math.min(1, images.length))];
  const key = `${name}/cross_token_gate`;
  if (goldens.has(key)) checks.push(checkEqual(key, open, [...(await goldens.read(key, 2)).values]));

  const valuesAt = async (site: SiteName): Promise<Float32Array> => {
    const { tapped } = model.run(prompt, { taps: { tapped: tap(site) } });
    const values = await (tapped as Tensor<"f32">).read();
    tapped.dispose();
    return values;
  };
  for (const [block, layer] of cross.layers.entries()) {
    for (const half of ["attn", "mlp"] as const) {
      const [gateKey, outKey] = ["gate", "out"].map((part) => `${name}/cross_${half}_${part}.${block}`);
      if (!goldens.has(gateKey!) || !goldens.has(outKey!)) continue;
      const gate = (await goldens.read(gateKey!)).values;
      const out = (await goldens.read(outKey!, 3)).values;
      const width = out.length / prompt.length;
      const factor = half === "attn" ? open : open.map(() => 1);
      const gates = factor.flatMap((isOpen) => [...gate].map((each) => isOpen * each));
      const added = out.map((x, i) =>
        x === OMITTED ? x : x * gate[(i % width) % gate.length]! * factor[Math.floor(i / width)]!,
      ) as Float32Array;
      const pairs = [
        [gateKey!, `x${half}_gate.${layer}`, gates],
        [outKey!, `x${half}_out.${layer}`, added],
      ] as const;
      for (const [golden, site, expected] of pairs) {
        checks.push(checkTensor(golden, [await valuesAt(site as SiteName)], [expected], tolerance));
      }
    }
    const pattern = `${name}/cross_attn_pattern.${block}`;
    if (!goldens.has(pattern) || !open.includes(1)) continue;
    // Rows that see nothing are uniform there, and 0 here.
    const rowsThatSee = (values: ArrayLike<number>) => {
      const keys = values.length / cross.heads / prompt.length;
      return Array.from(values).filter((_, i) => open[Math.floor(i / keys) % prompt.length]);
    };
    const expected = rowsThatSee((await goldens.read(pattern, 4)).values);
    const found = rowsThatSee(await valuesAt(`xattn_pattern.${layer}`));
    checks.push(checkTensor(pattern, [found], [expected], tolerance));
  }
  return checks;
}

/** For each position the numbers of the images that it sees. */
function imagesSeen(
  prompt: TextCase["prompts"][number],
  { config, network, sites }: PatchableModel,
): number[][] {
  const rule = network.stack.blocks[sites.text.cross!.layers[0]!]!.crossRule!;
  const { latents } = config.vision!.resampler!;
  return prompt.ids.map((_, position) => {
    const { start, end } = rule(position, { prompt });
    return Array.from({ length: (end - start) / latents }, (_, i) => start / latents + i);
  });
}
