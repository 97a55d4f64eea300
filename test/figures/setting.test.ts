import { beforeAll, expect, test } from "vitest";
import { attentionMaps } from "../../src/analysis/heads/attention-map.ts";
import { headPattern, headPatterns } from "../../src/analysis/heads/head-pattern.ts";
import { rankHeads } from "../../src/analysis/heads/rank-heads.ts";
import { logitLens } from "../../src/analysis/lens/logit-lens.ts";
import { patchMap } from "../../src/analysis/maps/patch-map.ts";
import { attentionFigure } from "../../src/figures/attention-figure.ts";
import type { Figure } from "../../src/figures/figure.ts";
import { heatFigure } from "../../src/figures/heat-figure.ts";
import { lensFigure } from "../../src/figures/lens-figure.ts";
import { loadImage } from "../../src/images/files/load.ts";
import { logProbability } from "../../src/patching/metric.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { adapterName } from "../../src/tensor/adapter-name.ts";
import { fixtureModel } from "../helpers/model.ts";
import { picture, textsOf } from "../helpers/svg.ts";

let model: PatchableModel;
beforeAll(async () => {
  model = await fixtureModel("llava");
});

const shown = async (figure: Figure) => textsOf(await figure.svg()).join(" ");

test("figures of results say model, dtypes and adapter, and what is theirs besides", async () => {
  const [clean, corrupted] = ["Q: Greece", "Q: Sweden"].map((text) => model.prompt(text));
  const seen = model.prompt("Q: <image>", { images: [await loadImage("test/fixtures/images/photo.png")] });
  const metric = logProbability(30);
  const figures: Record<string, Figure> = {
    heat: heatFigure(await patchMap(model, clean!, corrupted!, { sites: "resid_pre.*", metric })),
    heads: heatFigure(await rankHeads(model, clean!, corrupted!, { metric })),
    head: attentionFigure(await headPattern(model, clean!, { layer: 1 })),
    "over text": attentionFigure(await headPatterns(model, clean!, { layer: 1 }), {
      at: -1,
      lines: ["mine"],
    }),
    lens: lensFigure(await logitLens(model, clean!, { at: "all", k: 2 }), { lines: ["mine"] }),
    "over a picture": attentionFigure(await attentionMaps(model, seen), { picture, lines: ["mine"] }),
  };
  const setting = `test/fixtures/llava/model (llava, F32 and I64) · ${adapterName(model.device.info)}`;
  for (const [name, figure] of Object.entries(figures)) {
    expect((await shown(figure)).split(setting).length, name).toBe(2);
  }
  expect(await shown(figures["heat"]!)).toContain("effect of clean activations");
  for (const name of ["over text", "lens", "over a picture"])
    expect(await shown(figures[name]!)).toContain("mine");
});
