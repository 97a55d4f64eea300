import type { TaskSummary } from "../../../../src/session/messages/results.ts";
import { planePrompts } from "../../views/see/plane.ts";
import type { SeeSlice } from "../../views/see/see-slice.ts";
import type { Program } from "./program.ts";
import { text } from "./program.ts";
import { promptCode } from "./prompt-code.ts";

/** What the view See shows: attention, words of patches, or the plane. Says whether there is anything. */
export function seeCode(program: Program, slice: SeeSlice, tasks: readonly TaskSummary[]): boolean {
  switch (slice.tab) {
    case "attention":
      return attentionCode(program, slice);
    case "lens":
      return lensCode(program, slice);
    case "plane":
      return planeCode(program, slice, tasks);
  }
}

function attentionCode(program: Program, { prompt, at, mode, layer }: SeeSlice): boolean {
  const name = promptCode(program, prompt);
  const call = mode === "rollout" ? "rolloutMaps" : "attentionMaps";
  program.use([call]);
  const options = [
    ...(at === -1 ? [] : [`at: ${at}`]),
    ...(mode === "heads"
      ? [`head: "each"`, `layers: [${layer ?? "Math.floor(model.config.layers * 0.72)"}]`]
      : []),
  ];
  const given = options.length > 0 ? `, { ${options.join(", ")} }` : "";
  program.line(`for (const { layer, head, share, weights } of await ${call}(model, ${name}${given})) {`);
  program.line(`  const peak = Math.max(...weights);`);
  program.line(
    `  console.log(JSON.stringify(["layer", layer, "head", head ?? null, share.toFixed(4), peak.toFixed(4)]));`,
  );
  program.line("}");
  return true;
}

function lensCode(program: Program, { prompt, layer }: SeeSlice): boolean {
  const name = promptCode(program, prompt);
  program.use(["logitLens", "patchPositions"]);
  const where = layer ?? "Math.floor(model.config.layers * 0.72)";
  program.line(`const patches = patchPositions(${name}.span("image"));`);
  program.line(
    `for (const { layer, position, tokens } of await logitLens(model, ${name}, { at: patches, k: 3, layers: [${where}] })) {`,
  );
  program.line(
    "  console.log(JSON.stringify([layer, position, ...tokens.map((each) => [each.text, each.probability.toFixed(4)])]));",
  );
  program.line("}");
  return true;
}

function planeCode(program: Program, { shown }: SeeSlice, tasks: readonly TaskSummary[]): boolean {
  if (!shown) return false;
  const { layer, method, seed, count } = shown;
  const prompts = planePrompts(shown, tasks).map(({ task, asked, input }) =>
    promptCode(
      program,
      { kind: "task", task, input, asked, specify: asked, count, seed },
      `${task} ${input}`,
    ),
  );
  program.use(["tap"]);
  program.line(`const prompts = [${prompts.join(", ")}];`);
  program.line(`const points: Float32Array[] = [];`);
  program.line("for (const prompt of prompts) {");
  program.line(
    `  const { v } = model.run(prompt, { taps: { v: tap(${text(`resid_post.${layer}`)}, -1) } });`,
  );
  program.line("  points.push((await v.read()) as Float32Array);");
  program.line("}");
  if (method === "pca") {
    program.use(["principalPlane"]);
    program.line("const { plane } = principalPlane(points);");
  } else {
    program.use(["neighbourPlane"]);
    program.line(
      "const distance = (a: Float32Array, b: Float32Array) => Math.hypot(...a.map((x, i) => x - b[i]!));",
    );
    program.line(
      `const plane = neighbourPlane(points.map((a) => points.map((b) => distance(a, b))), { seed: ${seed} });`,
    );
  }
  program.line("for (const [x, y] of plane) console.log(JSON.stringify([x.toFixed(4), y.toFixed(4)]));");
  return true;
}
