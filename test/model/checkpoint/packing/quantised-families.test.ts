import { expect, it } from "vitest";
import { run } from "../../../../src/patching/run.ts";
import { largest } from "../../../helpers/compare.ts";
import { randomIds, TEXT_FIXTURES } from "../../../helpers/model.ts";
import { quantisedFixture } from "../../../helpers/quantised.ts";

/** Those that take pictures: their language models, and what cross-attention or a Q-Former has in front of them, are matrices too. */
const WITH_PICTURES = [
  ...["llava", "llava-pixtral", "llava_next", "llava_onevision", "paligemma", "gemma3", "fuyu"],
  ...["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics", "idefics2", "smolvlm", "internvl"],
  ...["mllama", "blip2-opt", "blip2-t5", "instructblip-llama"],
];

it.each([...TEXT_FIXTURES, "t5", ...WITH_PICTURES])(
  "%s in int8 computes what its unpacked weights do",
  async (name) => {
    const { quantised, unpacked } = await quantisedFixture(name, {
      linear: { format: "int8", group: 8 },
      embedding: "stored",
    });
    const prompt = quantised.promptFromIds(randomIds(9, 1));
    const logits = (model: typeof quantised) => run(model, prompt, { logits: "all" }).logits!;
    const [found, expected] = await quantised.device.read([logits(quantised), logits(unpacked)]);
    const difference = largest(found!.map((value, i) => value - expected![i]!));
    expect(difference / largest(expected as Float32Array)).toBeLessThan(1e-4);
    quantised.dispose();
    unpacked.dispose();
  },
);
