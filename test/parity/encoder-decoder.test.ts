import { expect, test } from "vitest";
import { checkFolder } from "../../src/parity/check-folder.ts";
import { testDevice } from "../helpers/device.ts";

// The patched runs among the goldens were added with transformers 5.24.

test.each(["t5", "t5-relu-tied"])("%s agrees with transformers in everything", async (name) => {
  const report = await checkFolder(`test/fixtures/${name}`, await testDevice());
  expect(report.checks.filter((check) => !check.passed)).toEqual([]);
  expect(report.passed).toBe(true);
  expect(report.notRun).toEqual([]);
  const names = report.checks.map((check) => check.name);
  for (const stack of ["encoder", "decoder"]) {
    for (const site of [
      "resid_pre.0",
      "resid_post.1",
      "attn_pattern.1",
      "attn_out.1",
      "mlp_out.1",
      "final_norm",
    ]) {
      expect(names).toContain(`case0/${stack}.${site}`);
      expect(names).toContain(`case2/${stack}.${site}, batch against single`);
    }
    expect(names).toContain(`case1/${stack}.patch.replace.logits_last`);
    expect(names).toContain(`case2/${stack}.patch.add.logits_last, resumed`);
    expect(names).toContain(`case2/${stack}.patch.add.resid_post.1`);
  }
  for (const golden of [
    "decoder.cross_attn_pattern.1",
    "logits",
    "generate.ids",
    "in.input_ids, from the text",
  ]) {
    expect(names).toContain(`case0/${golden}`);
  }
  expect(names).toContain("case2/generate.ids, one at a time");
});

test("blip2-t5 agrees in everything, with pictures in what the encoder reads", async () => {
  const report = await checkFolder("test/fixtures/blip2-t5", await testDevice());
  expect(report.checks.filter((check) => !check.passed)).toEqual([]);
  expect(report.notRun).toEqual([]);
  const names = report.checks.map((check) => check.name);
  for (const golden of [
    ...["in.input_ids, from the text", "vision.post_norm", "projector.out", "decoder.cross_attn_pattern.1"],
    ...["qformer.resid_pre.0", "qformer.resid_attn.1", "qformer.resid_cross.2", "qformer.resid_post.2"],
    ...["encoder.patch.add.resid_post.2", "encoder.patch.replace.logits_last, resumed"],
    ...["decoder.patch.add.resid_post.1", "generate.ids"],
  ]) {
    expect(names).toContain(`case0/${golden}`);
  }
  // Two prompts, each with a picture; transformers pads the shorter on the right.
  expect(names).toContain("case1/encoder.final_norm, batch against single");
  expect(names).toContain("case1/generate.ids, one at a time");
});
