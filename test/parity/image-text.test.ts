import { describe, expect, test } from "vitest";
import { checkFolder } from "../../src/parity/check-folder.ts";
import { testDevice } from "../helpers/device.ts";

const QFORMER = ["resid_pre.0", "resid_attn.1", "resid_cross.2", "resid_post.2"].map(
  (site) => `qformer.${site}`,
);

/** Fixtures of models with pictures, with what their goldens have beside the usual. */
const FIXTURES: Readonly<
  Record<
    string,
    { inside: readonly string[]; inputs: readonly string[]; read?: string; batch?: false; tower?: false }
  >
> = {
  paligemma: {
    inside: ["vision.post_norm", "vision.resid_post.2", "in.pixel_values, from photo.png"],
    inputs: ["in.token_type_ids"], // 0 throughout: all of a prompt is its prefix
  },
  smolvlm: {
    inside: ["vision.post_norm", "vision.resid_post.2", "vision.position_ids"],
    inputs: [],
    read: "projector.mlp", // what is read is the same as vision.post_norm
  },
  gemma3: {
    inside: [
      ...["vision.post_norm", "vision.resid_post.1", "projector.pooled", "projector.norm"],
      ...["attn_pattern.0", "attn_pattern.2", "q_norm.1", "k_norm.1", "in.token_type_ids"],
    ],
    inputs: [],
  },
  idefics2: {
    inside: [
      ...["vision.post_norm", "vision.resid_post.1", "vision.position_ids"],
      ...["projector.resid_post.0", "projector.resid_post.1"],
    ],
    inputs: [],
    read: "projector.mlp",
  },
  internvl: { inside: ["vision.resid_post.1"], inputs: [] },
  "internvl-qk-norm": {
    inside: ["vision.resid_post.1", "q_norm.1", "k_norm.1"],
    inputs: [],
    batch: false,
  },
  "blip2-opt": { inside: ["vision.resid_post.2", ...QFORMER], inputs: [], read: "vision.post_norm" },
  "instructblip-llama": {
    inside: ["vision.resid_post.2", ...QFORMER, "in.qformer_input_ids, from the ids"],
    inputs: [],
    read: "vision.post_norm",
  },
  fuyu: { inside: [], inputs: [], tower: false },
  "llava-pixtral": { inside: ["vision.resid_post.1"], inputs: [] },
  llava_onevision: { inside: ["vision.resid_post.2", "in.batch_num_images"], inputs: [] },
  llava_next: { inside: ["vision.resid_post.2", "in.pixel_values, from tall.png"], inputs: [] },
};

describe.each(Object.entries(FIXTURES))(
  "%s",
  (name, { inside, inputs, read = "projector.in", batch = true, tower = true }) => {
    test("agrees with transformers in everything that it has a golden for", async () => {
      const { checks, passed, notRun } = await checkFolder(`test/fixtures/${name}`, await testDevice());
      expect(checks.filter((check) => !check.passed).map((check) => check.name)).toEqual([]);
      expect(passed).toBe(true);
      expect(notRun.filter((golden) => !inputs.some((input) => golden.endsWith(`/${input}`)))).toEqual([]);
      const names = checks.map((check) => check.name);
      const usual = [
        ...(tower ? ["vision.resid_pre.0", read] : []),
        ...["in.input_ids, from the text", "projector.out", "resid_pre.0"],
        ...[
          "resid_post.2",
          "attn_pattern.1",
          "attn_out.1",
          "mlp_out.1",
          "final_norm",
          "logits",
          "generate.ids",
        ],
        ...["patch.replace.logits_last", "patch.add.resid_post.2", "patch.add.logits_last, resumed"],
      ];
      for (const golden of [...usual, ...inside]) expect(names).toContain(`case0/${golden}`);
      if (!batch) return;
      expect(names).toContain("batch/logits_last, batch against single");
      expect(names).toContain("batch/generate.ids, one at a time");
    });
  },
);
