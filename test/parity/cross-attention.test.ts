import { describe, expect, test } from "vitest";
import { checkFolder } from "../../src/parity/check-folder.ts";
import { testDevice } from "../helpers/device.ts";

// Models whose language model reads pictures by cross-attention.

describe.each(["idefics", "idefics-vector-gates"])("%s", (name) => {
  test("agrees with transformers in everything that it has a golden for", async () => {
    const { checks, notRun, passed } = await checkFolder(`test/fixtures/${name}`, await testDevice());
    expect(checks.filter((check) => !check.passed).map((check) => check.name)).toEqual([]);
    expect(passed).toBe(true);
    expect(notRun).toEqual([]);
    const names = checks.map((check) => check.name);
    const blocks = [0, 1].flatMap((block) =>
      [
        "cross_out",
        "cross_attn_out",
        "cross_attn_gate",
        "cross_attn_pattern",
        "cross_mlp_out",
        "cross_mlp_gate",
      ].map((golden) => `${golden}.${block}`),
    );
    for (const golden of [
      ...[
        "in.input_ids, from the text",
        "in.image_attention_mask",
        "cross_token_gate",
        "in.pixel_values, from photo.png",
      ],
      ...["vision.resid_post.2", "resampler.attn_out.1", "resampler.mlp_out.1", "resampler.out"],
      ...blocks,
      ...["embed", "resid_post.1", "logits", "generate.ids", "patch.add.logits_last, resumed"],
    ]) {
      expect(names).toContain(`case0/${golden}`);
    }
    if (name === "idefics-vector-gates") return;
    // Text alone, and a batch of prompts with two pictures and one.
    for (const golden of ["case2/cross_out.1", "case2/generate.ids", "batch/in.image_attention_mask"]) {
      expect(names).toContain(golden);
    }
    for (const golden of ["batch/resid_post.3, batch against single", "batch/generate.ids, one at a time"]) {
      expect(names).toContain(golden);
    }
  });
});
