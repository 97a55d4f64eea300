import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { formatParity } from "../../src/cli/terminal/parity-text.ts";
import { CheckpointError } from "../../src/errors.ts";
import { rope, ropeFrequencies, ropeTable } from "../../src/kernels/attention/rope.ts";
import { writeSafetensors } from "../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { RowMap } from "../../src/model/walk/row-map.ts";
import { SiteEvent } from "../../src/model/walk/site-events.ts";
import { checkFolder } from "../../src/parity/check-folder.ts";
import { checkEqual, checkTensor } from "../../src/parity/checks.ts";
import { GoldenFile } from "../../src/parity/golden-file.ts";
import { HalfRope } from "../../src/parity/half-rope.ts";
import { checkReal, readReal } from "../../src/parity/real-model.ts";
import type { ParityReport } from "../../src/parity/report.ts";
import { loadModel } from "../../src/patching/model.ts";
import { f16Bits, f16Value } from "../../src/tensor/dtype.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, TEXT_FIXTURES } from "../helpers/model.ts";

/** Without a batch. */
const SINGLE = ["llama-rope-llama3", "gpt_neox-sequential", "phi3-longrope"];

const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

/** A copy of a fixture, to be damaged. */
function copyOf(fixture: string): string {
  const parent = mkdtempSync(join(tmpdir(), "parity-"));
  folders.push(parent);
  const folder = join(parent, fixture);
  cpSync(`test/fixtures/${fixture}`, folder, { recursive: true });
  // Of which some cases have no pixel values.
  for (const picture of ["photo.png", "tall.png", "gray.png", "rgba.png"]) {
    cpSync(`test/fixtures/images/${picture}`, join(parent, "images", picture));
  }
  return folder;
}

/** Changes the first element of a tensor of four-byte elements. */
function changeTensor(path: string, name: string, change: (view: DataView, at: number) => void): void {
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + headerBytes).toString());
  const at = 8 + headerBytes + header[name].data_offsets[0];
  change(new DataView(file.buffer, file.byteOffset), at);
  writeFileSync(path, file);
}

const nudge = (by: number) => (view: DataView, at: number) =>
  view.setFloat32(at, view.getFloat32(at, true) + by, true);

interface RealJson {
  prompt: string;
  top10_ids: number[];
  top10_logits: number[];
  mean_log_prob: number;
  greedy_ids: number[];
  greedy_text: string;
}

interface Json {
  cases: { text: string; patch: { add_position: number } }[];
  batch: { items: object[] };
}

function changeJson(path: string, change: (json: Json) => void): void {
  const json = JSON.parse(readFileSync(path, "utf8"));
  change(json);
  writeFileSync(path, JSON.stringify(json));
}

function failures({ checks }: ParityReport): string[] {
  return checks.filter((check) => !check.passed).map(({ name }) => name);
}

describe.each(TEXT_FIXTURES)("%s", (name) => {
  test("agrees with transformers in everything that it has a golden for", async () => {
    const report = await checkFolder(`test/fixtures/${name}`, await testDevice());
    expect(failures(report)).toEqual([]);
    expect(report.passed).toBe(true);
    // Whatever is not a gradient or an input of ours was compared.
    expect(report.notRun.filter((golden) => !golden.includes("/grad."))).toEqual([]);
    const names = report.checks.map((check) => check.name);
    const detail = name === "gemma2" ? 2 : 1; // the layer that the goldens look into
    const inside = [
      "attn_pattern",
      "attn_out",
      "mlp_out",
      ...(["qwen3", "olmo2"].includes(name) ? ["q_norm", "k_norm"] : []),
    ];
    for (const site of [
      ...["resid_pre.0", "resid_post.0", "resid_post.1", "resid_post.2", "final_norm", "logits"],
      ...inside.map((site) => `${site}.${detail}`),
    ]) {
      expect(names).toContain(`case0/${site}`);
    }
    const patched = ["patch.replace.logits_last", "patch.add.logits_last", "patch.add.resid_post.2"];
    for (const golden of [...patched, "patch.add.logits_last, resumed", "generate.ids"]) {
      expect(names).toContain(`case0/${golden}`);
    }
    if (!SINGLE.includes(name)) {
      expect(names).toContain("batch/logits_last");
      expect(names).toContain("batch/resid_post.2, batch against single");
      expect(names).toContain("batch/generate.ids, one at a time");
    }
  });
});

// What scripts/make-family-golden.py wrote: small, with windows in some layers, and every site of every layer.
test.each(["qwen2", "qwen3", "gemma2", "gpt2", "gpt_neox"])("%s agrees at every site", async (family) => {
  const report = await checkFolder(`test/fixtures/sites/${family}`, await testDevice());
  expect(failures(report)).toEqual([]);
  expect(report.notRun).toEqual([]);
  const names = report.checks.map((check) => check.name);
  for (const site of ["embed", "q.0", "k.1", "v.2", "attn_pattern.0", "z.1", "mlp_pre.2", "mlp_act.0"]) {
    expect(names).toContain(`case2/${site}`);
  }
});

test("qwen3_vl: agrees with transformers in everything, deepstack features too", async () => {
  const report = await checkFolder("test/fixtures/qwen3_vl", await testDevice());
  expect(failures(report)).toEqual([]);
  expect(report.notRun).toEqual([]);
  const names = report.checks.map((check) => check.name);
  for (const golden of [
    ...["in.image_grid_thw", "position_ids_3d, row", "vision.resid_post.2", "projector.out", "deepstack.0"],
    ...[
      "deepstack.1",
      "resid_pre.1",
      "resid_pre.2",
      "q_norm.1",
      "patch.add.logits_last, resumed",
      "generate.ids",
    ],
  ]) {
    expect(names).toContain(`case1/${golden}`);
  }
  expect(names).toContain("batch/resid_pre.2, batch against single");
});

test("qwen3_vl: a golden of deepstack features that is off fails", async () => {
  const folder = copyOf("qwen3_vl");
  changeTensor(join(folder, "golden.safetensors"), "case0/deepstack.1", nudge(2e-3));
  expect(failures(await checkFolder(folder, await testDevice()))).toEqual([
    expect.stringContaining("case0/deepstack.1"),
  ]);
});

test("mllama: agrees with transformers in everything, what it does with pictures that fill up a batch too", async () => {
  const report = await checkFolder("test/fixtures/mllama", await testDevice());
  expect(failures(report)).toEqual([]);
  expect(report.notRun).toEqual([]);
  const names = report.checks.map((check) => check.name);
  for (const golden of [
    ...[
      "in.aspect_ratio_ids",
      "in.aspect_ratio_mask",
      "in.cross_attention_mask, prompt 0",
      "cross_token_gate",
    ],
    ...["vision.resid_post.2", "vision.attn_pattern.1", "vision.post_norm", "vision.global.attn_pattern.0"],
    ...["vision.global.resid_post.1", "vision.pre_tile_gate", "vision.global.mlp_gate.1", "projector.in"],
    ...["projector.out", "cross_attn_pattern.3", "cross_attn_out.1", "cross_mlp_out.3", "cross_k_norm.1"],
    ...["cross_mlp_gate.1", "resid_post.3", "patch.add.logits_last, resumed", "generate.ids"],
  ]) {
    expect(names).toContain(`case1/${golden}`);
  }
  expect(names).toContain("case2/resid_post.4");
  expect(names).toContain("batch/resid_post.4, batch against single");
});

test.each([
  "projector.in",
  "vision.global.attn_pattern.0",
  "cross_attn_pattern.3",
  "cross_attn_out.1",
  "vision.position_gate",
])("mllama: a golden that is off fails: %s", async (golden) => {
  const folder = copyOf("mllama");
  changeTensor(join(folder, "golden.safetensors"), `case1/${golden}`, nudge(2e-2));
  expect(failures(await checkFolder(folder, await testDevice()))).toEqual([
    expect.stringContaining(`case1/${golden}`),
  ]);
});

test("siglip2: agrees with transformers in everything, pictures of any size and padded texts", async () => {
  const report = await checkFolder("test/fixtures/siglip2", await testDevice());
  expect(failures(report)).toEqual([]);
  expect(report.notRun).toEqual([]);
  const names = report.checks.map((check) => check.name);
  for (const golden of [
    ...["in.spatial_shapes", "vision.resid_pre.0", "vision.attn_pattern.1", "vision.last_hidden_state"],
    ...["vision.pooled", "text.pooled", "image_embeds", "logits_per_text", "in.input_ids, from the texts"],
  ]) {
    expect(names).toContain(`case0/${golden}`);
  }
});

describe.each(["qwen2_vl", "qwen2_5_vl"])("%s", (name) => {
  test("agrees with transformers in everything that it has a golden for", async () => {
    const report = await checkFolder(`test/fixtures/${name}`, await testDevice());
    expect(failures(report)).toEqual([]);
    expect(report.passed).toBe(true);
    expect(report.notRun).toEqual([]);
    const names = report.checks.map((check) => check.name);
    const vision = [0, 1, 2].map((layer) => `vision.resid_post.${layer}`);
    const positions = ["time", "row", "column"].map((axis) => `position_ids_3d, ${axis}`);
    for (const golden of [
      ...["in.pixel_values, from photo.png", "in.mm_token_type_ids", ...positions],
      ...["vision.resid_pre.0", ...vision, "projector.out", "resid_pre.0", "attn_pattern.1", "logits"],
      ...["patch.replace.logits_last, resumed", "patch.add.resid_post.2", "generate.ids"],
    ]) {
      expect(names).toContain(`case0/${golden}`);
    }
    if (name === "qwen2_5_vl") {
      expect(names).toContain("case1/projector.out");
      expect(names).toContain("batch/resid_post.2, batch against single");
      expect(names).toContain("batch/generate.ids, one at a time");
    }
  });

  test.each(["projector.out", "vision.resid_post.1", "position_ids_3d", "in.mm_token_type_ids"])(
    "fails when a golden is off: %s",
    async (golden) => {
      const folder = copyOf(name);
      const integers = golden === "position_ids_3d" || golden.startsWith("in.");
      const otherNumber = (view: DataView, at: number) =>
        view.setInt32(at, 1 + view.getInt32(at, true), true);
      const change = integers ? otherNumber : nudge(2e-3);
      changeTensor(join(folder, "golden.safetensors"), `case0/${golden}`, change);
      const [failed, ...others] = failures(await checkFolder(folder, await testDevice()));
      expect(failed).toMatch(`case0/${golden}`);
      expect(others).toEqual([]);
    },
  );

  test("goldens whose patches are not those of a picture, or of too few, are refused", async () => {
    for (const [tensor, message] of [
      ["case0/in.pixel_values", /frames are all the same/],
      ["case0/in.image_grid_thw", /expected the patches of 1 images/],
    ] as const) {
      const folder = copyOf(name);
      changeTensor(join(folder, "golden.safetensors"), tensor, (view, at) => view.setInt32(at, 2, true));
      await expect(checkFolder(folder, await testDevice())).rejects.toThrow(message);
    }
  });
});

describe("gradients", () => {
  test("of logits by site and of the loss by weight, and training steps, are compared", async () => {
    const report = await checkFolder("test/fixtures/llama", await testDevice());
    expect(failures(report)).toEqual([]);
    expect(report.notRun).toEqual([]);
    const names = report.checks.map((check) => check.name);
    for (const golden of [
      ...[
        "logit_diff",
        "logit_diff/embed",
        "logit_diff/z.1",
        "logit_diff/mlp_out.2",
        "logit_diff/resid_post.0",
      ],
      ...[
        "loss",
        "loss/model.norm.weight",
        "loss/lm_head.weight",
        "loss/model.layers.0.mlp.gate_proj.weight",
      ],
      ...["adamw/losses", "adamw/grad_norms", "lora/losses", "lora/grad_norms"],
    ]) {
      expect(names).toContain(`gradient ${golden}`);
    }
    for (const golden of [
      "adamw/change/model.embed_tokens.weight",
      "lora/end/model.layers.2.self_attn.v_proj.B",
    ]) {
      expect(names).toContain(golden);
    }
  });

  test.each([
    ["logit_diff/q.1", "gradient logit_diff/q.1"],
    ["loss/model.layers.1.mlp.down_proj.weight", "gradient loss/model.layers.1.mlp.down_proj.weight"],
    ["lora/losses", "gradient lora/losses"],
    ["adamw/change/model.layers.1.post_attention_layernorm.weight", "adamw/change"],
  ])("fail when a golden is off: %s", async (golden, name) => {
    const folder = copyOf("llama");
    changeTensor(join(folder, "gradients.safetensors"), golden, nudge(0.01));
    const [failed, ...others] = failures(await checkFolder(folder, await testDevice()));
    expect(failed).toMatch(name);
    expect(others).toEqual([]);
  });
});

test("goldens of gradients are named as not run where nothing says what they are of", async () => {
  const folder = copyOf("llama");
  rmSync(join(folder, "gradients.json"));
  const report = await checkFolder(folder, await testDevice());
  expect(report.notRun).toContain("case0/grad.loss");
  expect(report.notRun).toContain("case0/grad.logit_diff/resid_post.2");
  expect(formatParity([report])).toMatch(
    /not run.*case0\/grad\.loss[\s\S]*pass: all \d+ checks; \d+ goldens not run/,
  );
});

describe("fails when", () => {
  test.each([
    "case0/attn_out.1",
    "case1/attn_pattern.1",
    "case0/patch.add.resid_post.2",
    "batch/logits_last",
  ])("a golden is off: %s", async (golden) => {
    const folder = copyOf("mistral");
    changeTensor(join(folder, "golden.safetensors"), golden, nudge(2e-3));
    const report = await checkFolder(folder, await testDevice());
    expect(failures(report)).toEqual([golden]);
    expect(report.passed).toBe(false);
    expect(formatParity([report])).toMatch(/FAIL[\s\S]*FAIL: 1 of \d+ checks/);
  });

  test("a golden is not a number", async () => {
    const folder = copyOf("mistral");
    changeTensor(join(folder, "golden.safetensors"), "case0/final_norm", nudge(Number.NaN));
    expect(failures(await checkFolder(folder, await testDevice()))).toEqual(["case0/final_norm"]);
  });

  test("a greedy id is another", async () => {
    const folder = copyOf("mistral");
    const otherId = (view: DataView, at: number) => view.setInt32(at, 3, true);
    changeTensor(join(folder, "golden.safetensors"), "case0/generate.ids", otherId);
    expect(failures(await checkFolder(folder, await testDevice()))).toEqual(["case0/generate.ids"]);
  });

  test("a text is tokenised into other ids", async () => {
    const folder = copyOf("mistral");
    changeJson(join(folder, "case.json"), ({ cases }) => {
      cases[0]!.text += "!";
    });
    expect(failures(await checkFolder(folder, await testDevice()))).toEqual([
      "case0/in.input_ids, from the text",
    ]);
  });

  test("one weight of the last layer differs", async () => {
    const folder = copyOf("mistral");
    const weight = "model.layers.2.mlp.down_proj.weight";
    changeTensor(join(folder, "model", "model.safetensors"), weight, nudge(0.05));
    const failed = failures(await checkFolder(folder, await testDevice()));
    expect(failed).toContain("case0/resid_post.2");
    expect(failed).toContain("batch/logits_last");
    expect(failed.some((name) => /resid_post\.[01]|attn_out|against single/.test(name))).toBe(false);
  });

  test("the patch is at another position", async () => {
    const folder = copyOf("mistral");
    changeJson(join(folder, "case.json"), ({ cases }) => {
      cases[0]!.patch.add_position -= 1;
    });
    const failed = failures(await checkFolder(folder, await testDevice()));
    expect(failed).toContain("case0/patch.add.resid_post.2");
    expect(failed.every((name) => name.startsWith("case0/patch.add."))).toBe(true);
  });
});

describe("says what is wrong with a folder", () => {
  test.each<[string, (folder: string) => void, RegExp]>([
    ["without case.json", (f) => rmSync(join(f, "case.json")), /case\.json.*ENOENT/],
    ["without goldens", (f) => rmSync(join(f, "golden.safetensors")), /golden\.safetensors/],
    ["without a model", (f) => rmSync(join(f, "model"), { recursive: true }), /model.*config\.json/],
    [
      "whose case.json is cut off",
      (f) => writeFileSync(join(f, "case.json"), '{"cases": ['),
      /case\.json: .*JSON/,
    ],
    [
      "of an unknown family",
      (f) => changeJson(join(f, "model", "config.json"), (c) => Object.assign(c, { model_type: "bloom" })),
      /"bloom".*are not supported; of its kind \(of texts\) there is llama; docs\/families\/README\.md lists all/,
    ],
    [
      "with fewer texts than prompts",
      (f) => changeJson(join(f, "case.json"), ({ batch }) => batch.items.pop()),
      /batch: expected ids and a mask of 1 prompts, found \[2, ?26\]/,
    ],
    [
      "without a tolerance",
      (f) => changeJson(join(f, "case.json"), (c) => Object.assign(c, { tolerance: {} })),
      /atol is missing/,
    ],
  ])("%s", async (_, damage, message) => {
    const folder = copyOf("mistral");
    damage(folder);
    const attempt = checkFolder(folder, await testDevice());
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toBeInstanceOf(CheckpointError);
  });
});

describe("goldens of a real model", () => {
  const fixture = "test/fixtures/llama";

  async function golden(name: string): Promise<Float32Array> {
    await using file = await GoldenFile.open(join(fixture, "golden.safetensors"));
    return (await file.read(name)).values as Float32Array;
  }

  /** The second case of the fixture, as goldens of a real model are written. */
  async function writeReal(): Promise<string> {
    const folder = mkdtempSync(join(tmpdir(), "parity-"));
    folders.push(folder);
    const { input_ids, text, generate } = JSON.parse(readFileSync(join(fixture, "case.json"), "utf8"))
      .cases[1];
    const logits = await golden("case1/logits");
    const rows = input_ids.map((_: number, row: number) => logits.subarray(row * 448, (row + 1) * 448));
    const last: Float32Array = rows.at(-1);
    const top = [...last.keys()].sort((a, b) => last[b]! - last[a]!).slice(0, 10);
    const logProbs = input_ids.slice(1).map((id: number, i: number) => {
      const row: Float32Array = rows[i];
      return row[id]! - Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
    });
    const real = {
      tolerance: { atol: 1e-4, rtol: 1e-4 },
      cases: [
        {
          prompt: `<s>${text}`,
          input_ids,
          top10_ids: top,
          top10_logits: top.map((id) => last[id]),
          greedy_ids: generate.ids,
          greedy_text: generate.text,
          mean_log_prob: logProbs.reduce((sum: number, x: number) => sum + x, 0) / logProbs.length,
        },
      ],
    };
    writeFileSync(join(folder, "real.json"), JSON.stringify(real));
    const streams = await Promise.all([0, 1, 2].map((layer) => golden(`case1/resid_post.${layer}`)));
    const chunks: Uint8Array[] = [];
    const tensors = [
      { name: "case0/logits.last", shape: [448], values: last },
      {
        name: "case0/resid_post.last",
        shape: [3, 48],
        values: Float32Array.from(streams.flatMap((stream) => [...stream.slice(-48)])),
      },
    ].map(({ values, ...rest }) => ({ ...rest, stored: "F32", data: Uint8Array.from(bytesOf(values)) }));
    for await (const chunk of writeSafetensors(tensors)) chunks.push(chunk);
    writeFileSync(join(folder, "real.golden.safetensors"), Buffer.concat(chunks));
    return join(folder, "real.json");
  }

  const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array) =>
    new Uint8Array(buffer, byteOffset, byteLength);

  test("are met by the fixture", async () => {
    const report = await checkReal(await readReal(await writeReal()), await fixtureModel("llama"));
    expect(failures(report)).toEqual([]);
    expect(report.checks.map(({ name }) => name)).toEqual([
      "case0/input_ids, from the text",
      "case0/resid_post.last",
      "case0/logits.last",
      "case0/top10_logits",
      "case0/top10_ids",
      "case0/mean_log_prob",
      "case0/greedy_ids",
      "case0/greedy_text",
    ]);
    expect([report.passed, report.note, report.notRun]).toEqual([true, undefined, []]);
  });

  test.each<[string, (c: RealJson) => unknown]>([
    ["top10_ids", (c) => c.top10_ids.reverse()],
    ["top10_logits", (c) => (c.top10_logits[0]! += 0.01)],
    ["mean_log_prob", (c) => (c.mean_log_prob += 0.01)],
    ["greedy_ids", (c) => (c.greedy_ids[4]! += 1)],
    ["greedy_text", (c) => (c.greedy_text += "!")],
    ["input_ids, from the text", (c) => (c.prompt += "!")],
  ])("fail where %s is another", async (name, change) => {
    const path = await writeReal();
    changeJson(path, ({ cases }) => change(cases[0] as unknown as RealJson));
    const failed = failures(await checkReal(await readReal(path), await fixtureModel("llama")));
    expect(failed).toContain(`case0/${name}`);
    // The logits belong to the ids, in this order.
    expect(failed.length).toBe(name === "top10_ids" ? 2 : 1);
  });

  test.each(["logits.last", "resid_post.last"])("fail where %s is off", async (name) => {
    const path = await writeReal();
    changeTensor(path.replace(".json", ".golden.safetensors"), `case0/${name}`, nudge(0.01));
    const report = await checkReal(await readReal(path), await fixtureModel("llama"));
    expect([failures(report), report.note]).toEqual([[`case0/${name}`], undefined]);
  });

  // What `npm test` fetches; the goldens' model had RoPE frequencies in f16.
  test("are met by SmolLM2", async () => {
    const device = await testDevice();
    using model = await loadModel("xpatch:smollm2", { device });
    const report = await checkReal(await readReal("test/fixtures/real/smollm2.json"), model);
    expect(failures(report)).toEqual([]);
    expect(report.note).toMatch(/RoPE frequencies rounded to f16/);
  }, 300_000);
});

test("RoPE with frequencies in f16 turns queries by their angles", async () => {
  const model = await fixtureModel("llama");
  const { device, config } = model;
  const { headDim, heads } = config;
  const settings = config.rope!;
  const half = headDim / 2;
  const x = randomArray(2 * heads * headDim, 1);
  const rows = RowMap.packed([2], [60]);
  using halfRope = new HalfRope(model, 62);
  using value = device.tensor(x, { shape: [2, heads * headDim] });
  const event = new SiteEvent("q.0", "rows", value, rows);
  halfRope.visit(event);
  using turned = event.value;
  using positions = device.tensor(Uint32Array.of(60, 61));
  const options = { rotaryDim: headDim, ...settings };
  using table = device.tensor(ropeTable({ ...options, length: 62 }).cosSin, { shape: [62, headDim] });
  using found = rope(turned, positions, table, { headDim });
  const frequencies = [...ropeFrequencies(options)];
  const expectedWith = (round: (frequency: number) => number) =>
    x.map((_, i) => {
      const [row, within] = [Math.floor(i / (heads * headDim)), i % headDim];
      const angle = (60 + row) * round(frequencies[within % half]!);
      const partner = within < half ? -x[i + half]! : x[i - half]!;
      return x[i]! * Math.cos(angle) + partner * Math.sin(angle);
    });
  const close = { atol: 1e-5, rtol: 1e-5 };
  expectClose(
    await found.read(),
    expectedWith((f) => f16Value(f16Bits(f))),
    close,
  );
  const exact = expectedWith((f) => f);
  const values = await found.read();
  expect(() => expectClose(values, exact, close)).toThrow();
});

describe("a comparison", () => {
  const tolerance = { atol: 0.1, rtol: 0.01 };

  test("holds each element to |a - b| <= atol + rtol * |b|", () => {
    const check = (a: number, b: number) => checkTensor("x", [[a]], [[b]], tolerance).passed;
    expect([check(10.19, 10), check(10.21, 10), check(0.05, 0), check(0.2, 0)]).toEqual([
      true,
      false,
      true,
      false,
    ]);
    expect(check(Number.NaN, 0) || check(0, Number.NaN) || check(Number.POSITIVE_INFINITY, 0)).toBe(false);
  });

  test("reports largest difference, relative norm and cosine", () => {
    const check = checkTensor("x", [[3], [0, 5]], [[3], [4, 0]], tolerance);
    expect(check).toMatchObject({ elements: 3, maxAbs: 5, passed: false });
    expect(check).toHaveProperty("relativeNorm", Math.sqrt(16 + 25) / 5);
    expect(check).toHaveProperty("cosine", 9 / Math.sqrt(34 * 25));
    const opposite = checkTensor("x", [[-1, -2]], [[1, 2]], tolerance);
    expect(opposite).toMatchObject({ relativeNorm: 2, passed: false });
    expect((opposite as { cosine: number }).cosine).toBeCloseTo(-1, 12);
  });

  test("of nothing, or of different numbers of elements, fails", () => {
    expect(checkTensor("x", [], [], tolerance).passed).toBe(false);
    expect(checkTensor("x", [[]], [[]], tolerance).passed).toBe(false);
    expect(checkTensor("x", [[1, 2]], [[1]], tolerance).passed).toBe(false);
    expect(checkTensor("x", [[1], []], [[1]], tolerance).passed).toBe(false);
    expect(checkEqual("x", [1, 2], [1, 2]).passed).toBe(true);
    expect(checkEqual("x", [1, 2], [1, 3]).passed).toBe(false);
  });
});
