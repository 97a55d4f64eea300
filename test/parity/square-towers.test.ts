import { expect, test } from "vitest";
import { checkFolder } from "../../src/parity/check-folder.ts";
import { testDevice } from "../helpers/device.ts";

// LLaVA in all its spellings, and the dual encoders: towers that read squares.

test.each(["llava", "llava-as-saved", "llava-bf16-module-names", "llava-f16-sharded", "llava-mistral"])(
  "%s agrees with transformers in everything",
  async (name) => {
    const { checks, notRun, passed } = await checkFolder(`test/fixtures/${name}`, await testDevice());
    expect(checks.filter((check) => !check.passed).map((check) => check.name)).toEqual([]);
    expect(passed).toBe(true);
    expect(notRun).toEqual([]);
    const names = checks.map((check) => check.name);
    const patched = ["patch.replace.logits_last", "patch.add.logits_last", "patch.add.logits_last, resumed"];
    for (const golden of ["projector.out", "resid_post.2", "logits", "generate.ids", ...patched])
      expect(names).toContain(`case0/${golden}`);
    if (name === "llava") expect(names).toContain("batch/logits_last, batch against single");
  },
);

test.each(["clip", "siglip"])("%s agrees with transformers in everything", async (name) => {
  const { checks, notRun, passed } = await checkFolder(`test/fixtures/${name}`, await testDevice());
  expect(checks.filter((check) => !check.passed).map((check) => check.name)).toEqual([]);
  expect(passed).toBe(true);
  expect(notRun).toEqual([]);
  const names = checks.map((check) => check.name);
  for (const golden of ["vision.resid_post.1", "text.resid_post.1", "image_embeds", "text_embeds"])
    expect(names).toContain(`case0/${golden}`);
  if (name === "clip") expect(names.some((each) => each.startsWith("gradient "))).toBe(true);
});
