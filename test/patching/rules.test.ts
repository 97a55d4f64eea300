import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { GenerationError, PromptError, SiteError } from "../../src/errors.ts";
import { copy } from "../../src/kernels/movement/copy.ts";
import { scaleRows } from "../../src/kernels/movement/row-edits.ts";
import { readTensor } from "../../src/model/checkpoint/entries/tensor-entry.ts";
import { openCheckpoint } from "../../src/model/checkpoint/open-checkpoint.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { siteNames } from "../../src/model/walk/site-info.ts";
import { addVector, type Edit, scale, set, zero } from "../../src/patching/edit.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import type { Positions } from "../../src/patching/positions.ts";
import { resume } from "../../src/patching/resume.ts";
import type { RunOptions } from "../../src/patching/run.ts";
import { type Tap, tap } from "../../src/patching/tap.ts";
import { bf16Value } from "../../src/tensor/dtype.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds, readAll, TEXT_FIXTURES } from "../helpers/model.ts";

const CLOSE = { atol: 1e-5, rtol: 1e-5 };

async function setUp(name = "llama-gqa-tied", length = 9) {
  const model = await fixtureModel(name);
  return { model, device: model.device, prompt: model.promptFromIds(randomIds(length, 11)) };
}

type Options = RunOptions<Record<string, Tap>>;

/** [vocab], or of a list of prompts [prompts, vocab]. */
async function logitsOf(model: PatchableModel, input: Prompt | readonly Prompt[], options: Options = {}) {
  const { logits } = model.run(input as Prompt, options);
  return (await readAll({ logits })).logits;
}

describe("a tap is a copy", () => {
  test("of what the site holds, whatever happens to it later", async () => {
    const { model, prompt } = await setUp();
    const taps = { tapped: tap("resid_post.0") };
    const { tapped } = await readAll(model.run(prompt, { taps }));
    // Later edits of the same run, and of the same tensor further on, leave it alone.
    const edits = [zero("resid_pre.1", "all"), zero("resid_mid.1", "all")];
    const edited = await readAll(model.run(prompt, { taps, edits }));
    expect(edited.tapped).toEqual(tapped);
    // An edit of the site itself comes first.
    const after = await readAll(model.run(prompt, { taps, edits: [scale("resid_post.0", "all", 2)] }));
    expectClose(
      after.tapped,
      tapped.map((x) => 2 * x),
      CLOSE,
    );
  });

  test("with memory of its own", async () => {
    const { model, device, prompt } = await setUp();
    const { a, b, stream, ...rest } = model.run(prompt, {
      taps: { a: tap("embed"), b: tap("embed"), stream: tap("resid_pre.0") },
    });
    const before = await device.read([b, stream] as Tensor[]);
    device.write(a, new Uint8Array(a.bytes));
    expect(await device.read([b, stream] as Tensor[])).toEqual(before);
    expect((await a.read()).every((x) => x === 0)).toBe(true);
    for (const tensor of [a, b, stream, rest.logits]) tensor?.dispose();
  });

  test("and survives the run, and others after it", async () => {
    const { model, device, prompt } = await setUp();
    const result = model.run(prompt, {
      taps: { a: tap("embed"), b: tap("mlp_out.2", -1), c: tap("pattern.1") },
    });
    const before = await device.read([result.a, result.b, result.c] as Tensor[]);
    for (let i = 0; i < 5; i++) await logitsOf(model, prompt, { edits: [zero("embed", "all")] });
    const after = await device.read([result.a, result.b, result.c] as Tensor[]);
    expect(after).toEqual(before);
    for (const tensor of Object.values(result)) tensor?.dispose();
  });
});

describe("what cannot fire throws and says which", () => {
  const v = new Float32Array(48);
  const cases: [string, (model: PatchableModel) => unknown, RegExp][] = [
    ["a site that does not exist", (m) => run(m, { taps: { x: tap("resid.1" as "embed") } }), /"resid.1"/],
    ["a layer that does not exist", (m) => run(m, { taps: { x: tap("q.3") } }), /q\.3.*3 layers, 0 to 2/],
    ["a vision site", (m) => run(m, { taps: { x: tap("vision.q.0") } }), /vision\.q\.0.*no vision tower/],
    ["a position past the end", (m) => run(m, { taps: { x: tap("q.0", 9) } }), /9 tokens.*found 9/],
    ["a position before the start", (m) => run(m, { edits: [zero("q.0", -10)] }), /found -10/],
    ["half a position", (m) => run(m, { edits: [zero("q.0", 1.5)] }), /found 1.5/],
    ["a span past the end", (m) => run(m, { edits: [zero("q.0", { start: 5, end: 10 })] }), /found 5 to 10/],
    ["an empty span", (m) => run(m, { edits: [zero("q.0", { start: 5, end: 5 })] }), /found 5 to 5/],
    ["no positions", (m) => run(m, { edits: [zero("q.0", [])] }), /at least one position/],
    ["a position twice", (m) => run(m, { edits: [zero("q.0", [1, 1])] }), /each once, found \[1, 1\]/],
    ["an unknown span", (m) => run(m, { taps: { x: tap("q.0", { span: "who" }) } }), /no span "who"/],
    [
      "a head that does not exist",
      (m) => run(m, { taps: { x: tap("k.0", 1, { head: 2 }) } }),
      /k\.0, position 1.*0 to 1, found head 2/,
    ],
    [
      "a head where there are none",
      (m) => run(m, { edits: [zero("mlp_out.0", 1, { head: 0 })] }),
      /mlp_out\.0.*no heads/,
    ],
    [
      "features past the end",
      (m) => run(m, { edits: [zero("embed", 1, { features: { start: 40, end: 49 } })] }),
      /embed.*0 to 48, found 40 to 49/,
    ],
    [
      "a prompt that is not there",
      (m) => run(m, { edits: [zero("q.0", 1, { prompt: 1 })] }),
      /q\.0.*no prompt 1 among 1/,
    ],
    [
      "a value of another width",
      (m) => run(m, { edits: [set("mlp_act.0", 1, v)] }),
      /mlp_act\.0, position 1.*\[96\].*found 48/,
    ],
    [
      "a value for fewer positions",
      (m) =>
        run(m, { edits: [set("embed", [1, 2, 3], m.device.tensor(randomArray(96, 1), { shape: [2, 48] }))] }),
      /\[48\] or \[3, 48\], found \[2, 48\]/,
    ],
    [
      "a tap after the last layer to run",
      (m) => run(m, { taps: { x: tap("q.2", 1) }, stopAfter: 1 }),
      /stops after layer 1.*tap x at q\.2, position 1/,
    ],
    [
      "an edit of the head of a run that stops",
      (m) => run(m, { edits: [zero("logits", -1)], stopAfter: 2 }),
      /stops after layer 2.*logits/,
    ],
    ["a last layer that does not exist", (m) => run(m, { stopAfter: 3 }), /0 to 2, found 3/],
    [
      "a value for another number of keys",
      (m) => run(m, { edits: [set("pattern.1", -1, new Float32Array(8))] }),
      /pattern\.1.*9 keys, found 8/,
    ],
    ["no prompts", (m) => m.run([]), /at least one prompt/],
    [
      "a prompt longer than the context",
      (m) => m.run(m.promptFromIds(randomIds(257, 1))),
      /at most 256 tokens.*found 257/,
    ],
    ["a variant without edits", (m) => resumed(m, []), /variant 0 has no edits/],
    [
      "a resumed tap of what did not change",
      (m) => resumed(m, [zero("q.1", 5)], { x: tap("q.1", 4) }),
      /tap x at q\.1, position 4: 1 positions/,
    ],
  ];

  function run(model: PatchableModel, options: Options) {
    return model.run(model.promptFromIds(randomIds(9, 11)), options);
  }

  function resumed(model: PatchableModel, edits: Edit[], taps = {}) {
    using recording = model.record(model.promptFromIds(randomIds(9, 11)));
    return resume(recording, [{ edits }], { taps });
  }

  test.each(cases)("%s", async (_, attempt, message) => {
    const { model, device } = await setUp();
    const before = device.memory.liveBuffers;
    const scope = device.openScope();
    try {
      const thrown = scope.enter(() => {
        try {
          attempt(model);
        } catch (error) {
          return error as Error;
        }
      });
      expect(thrown?.message).toMatch(message);
      expect(thrown instanceof SiteError || thrown instanceof PromptError).toBe(true);
    } finally {
      scope.dispose();
    }
    expect(device.memory.liveBuffers).toBe(before);
  });
});

describe("positions", () => {
  test("negative ones count from the end, spans and functions name the same rows", async () => {
    const model = await fixtureModel("llama");
    const prompt = model.prompt(["The capital of ", { text: "France", name: "country" }, " is Paris."]);
    const { start, end } = prompt.span("country");
    const same: [Positions, readonly number[]][] = [
      [-1, [prompt.last]],
      [-prompt.length, [0]],
      [{ start: 2, end: 5 }, [2, 3, 4]],
      [{ span: "country" }, Array.from({ length: end - start }, (_, i) => start + i)],
      [
        [5, -2, 0],
        [5, prompt.length - 2, 0],
      ],
      [(p) => p.span("country").end - 1, [end - 1]],
      ["all", Array.from({ length: prompt.length }, (_, i) => i)],
    ];
    const edit = (at: Positions) => logitsOf(model, prompt, { edits: [scale("resid_post.0", at, 3)] });
    for (const [at, rows] of same) {
      const { whole, some } = await readAll(
        model.run(prompt, { taps: { whole: tap("mlp_in.1"), some: tap("mlp_in.1", at) } }),
      );
      const width = model.config.width;
      expect([...some]).toEqual(rows.flatMap((row) => [...whole.slice(row * width, (row + 1) * width)]));
      expect(await edit(at)).toEqual(await edit(rows));
    }
    expect(await edit(-1)).not.toEqual(await edit(-2));
  });

  test("an edit reaches the rows, heads and features that it names, and no others", async () => {
    const { model, prompt } = await setUp();
    const { heads, headDim } = model.config;
    const edits = [
      set("z.1", [2, 4], randomArray(2 * headDim, 1), { head: 3 }),
      scale("z.1", 6, 2, { features: { start: 5, end: 7 } }),
    ];
    const before = (await readAll({ z: model.run(prompt, { taps: { z: tap("z.1") } }).z })).z;
    const after = (await readAll({ z: model.run(prompt, { taps: { z: tap("z.1") }, edits }).z })).z;
    const changed = [...before.keys()].filter((i) => before[i] !== after[i]);
    const width = heads * headDim;
    const named = [2, 4].flatMap((row) =>
      Array.from({ length: headDim }, (_, i) => row * width + 3 * headDim + i),
    );
    expect(changed).toEqual([...named, 6 * width + 5, 6 * width + 6]);
  });

  test("edits of one site come in the order given", async () => {
    const { model, prompt } = await setUp();
    const double = scale("resid_post.1", -1, 2);
    const shift = addVector("resid_post.1", -1, randomArray(48, 3));
    const one = await logitsOf(model, prompt, { edits: [double, shift] });
    const other = await logitsOf(model, prompt, { edits: [shift, double] });
    expect(() => expectClose(one, other, CLOSE)).toThrow();
  });
});

describe("a batch gives what one prompt at a time gives", () => {
  test.each(["llama-gqa-tied", "mistral", "gpt2", "gpt_neox", "qwen3", "gemma2", "olmo2", "phi3-longrope"])(
    "%s, at every site",
    async (name) => {
      const model = await fixtureModel(name);
      const prompts = [7, 1, 12, 9].map((length, i) => model.promptFromIds(randomIds(length, i)));
      const taps = Object.fromEntries(siteNames(model.sites).map((site) => [`at ${site}`, tap(site)]));
      const edits = [
        addVector("resid_post.0", -1, randomArray(model.config.width, 8)),
        zero("mlp_out.1", 0),
        scale("v.2", -1, 3, { prompt: 2, head: 1 }),
        scale("pattern.1", -1, 0.5, { prompt: 3, head: 2 }),
      ];
      const together = model.run(prompts, { taps, edits, logits: "all" });
      for (const [p, prompt] of prompts.entries()) {
        const own = edits.filter((e) => e.prompt === undefined || e.prompt === p);
        const alone = model.run(prompt, {
          taps,
          edits: own.map((e) => ({ ...e, prompt: undefined })),
          logits: "all",
        });
        const names = Object.keys(alone);
        const expected = await model.device.read(names.map((key) => alone[key] as Tensor<"f32">));
        const found = await model.device.read(names.map((key) => (together[key] as Tensor<"f32">[])[p]!));
        for (const [i, key] of names.entries()) {
          expectClose(found[i]!, expected[i]!, { ...CLOSE, label: `prompt ${p} ${key}` });
        }
        for (const key of names) alone[key]!.dispose();
      }
      for (const list of Object.values(together)) for (const tensor of list as Tensor[]) tensor.dispose();
    },
  );

  test("neighbours do not matter, but an edit of one of two does", async () => {
    const model = await fixtureModel("llama");
    const [a, b, c] = [5, 8, 3].map((length, i) => model.promptFromIds(randomIds(length, 20 + i)));
    const row = async (prompts: readonly Prompt[], index: number, edits: Edit[] = []) =>
      [...(await logitsOf(model, prompts, { edits }))].slice(index * 448, (index + 1) * 448);
    const expected = await row([a!], 0);
    expectClose(await row([a!, b!], 0), expected, CLOSE);
    expectClose(await row([b!, c!, a!], 2), expected, CLOSE);
    expectClose(await row([b!, a!], 1, [zero("resid_post.1", -1, { prompt: 0 })]), expected, CLOSE);
    const edited = await row([b!, a!], 1, [zero("resid_post.1", -1, { prompt: 1 })]);
    expect(() => expectClose(edited, expected, CLOSE)).toThrow();
  });
});

describe("weights are used as stored", () => {
  test("the embedding is the file's, and no norm is folded into a matrix", async () => {
    const { model, prompt } = await setUp("llama-rope-llama3");
    const { width, normEps } = model.config;
    await using checkpoint = await openCheckpoint("test/fixtures/llama-rope-llama3/model");
    const stored = async (name: string) =>
      Float32Array.from(new Uint16Array((await readTensor(checkpoint.entry(name))).buffer), bf16Value);
    const taps = { embed: tap("embed"), pre: tap("resid_pre.1"), normed: tap("attn_in.1"), q: tap("q.1") };
    const tapped = await readAll(model.run(prompt, { taps }));
    const table = await stored("model.embed_tokens.weight");
    const rows = prompt.ids.flatMap((id) => [...table.slice(id * width, (id + 1) * width)]);
    expect([...tapped.embed]).toEqual(rows);

    const gain = await stored("model.layers.1.input_layernorm.weight");
    const normed = tapped.pre.map((x, i) => {
      const row = tapped.pre.subarray(i - (i % width), i - (i % width) + width);
      const meanSquare = row.reduce((sum, y) => sum + y * y, 0) / width;
      return (x / Math.sqrt(meanSquare + normEps)) * gain[i % width]!;
    });
    expectClose(tapped.normed, normed, CLOSE);
    const matrix = await stored("model.layers.1.self_attn.q_proj.weight");
    const firstQuery = Array.from({ length: matrix.length / width }, (_, o) =>
      normed.slice(0, width).reduce((sum, x, i) => sum + x * matrix[o * width + i]!, 0),
    );
    expectClose(tapped.q.slice(0, firstQuery.length), firstQuery, CLOSE);
  });

  test("BOS is there where the prompt says so", async () => {
    const model = await fixtureModel("llama");
    const text = "The capital of France is";
    const [plain, bare] = [model.prompt(text), model.prompt(text, { bos: false })];
    expect([plain.bos, plain.ids[0], bare.bos]).toEqual([true, model.tokenizer.bosId, false]);
    expect(plain.ids.slice(1)).toEqual(bare.ids);
    const taps = { x: tap("embed") };
    const rows = [
      (await readAll(model.run(plain, { taps }))).x,
      (await readAll(model.run(bare, { taps }))).x,
    ];
    expect(rows[1]).toEqual(rows[0]!.slice(48));
  });
});

describe("a walk", () => {
  test.each(TEXT_FIXTURES)("shows every site of %s once, in order, and ends in the logits", async (name) => {
    const { model, prompt } = await setUp(name);
    const seen: string[] = [];
    const walk = model.walk(prompt);
    let step = walk.next();
    for (; !step.done; step = walk.next()) seen.push(step.value.site);
    expect(seen).toEqual(siteNames(model.sites));
    const { logits } = await readAll({ logits: step.value });
    expectClose(logits, await logitsOf(model, prompt), CLOSE);
  });

  test("goes on with the value that it is given", async () => {
    const { model, prompt } = await setUp();
    using first = model.device.zeros([2, 48]);
    const gone = model.device.zeros([9, 48]);
    gone.dispose();
    const foreign = (await testDevice({ adapter: "swiftshader" })).zeros([9, 48]);
    const walk = model.walk(prompt, (site) => site === "resid_post.1");
    let step = walk.next();
    const replaced: Tensor[] = [];
    for (; !step.done; step = walk.next()) {
      const event = step.value;
      expect(() => {
        event.value = first;
      }).toThrow(/resid_post\.1: expected a value f32\[9, 48\], found f32\[2, 48\]/);
      for (const [wrong, message] of [
        [undefined, /resid_post\.1: expected value to be a Tensor .* found undefined/],
        [new Float32Array(9 * 48), /resid_post\.1: expected value to be a Tensor .* found a Float32Array$/],
        [event.value.read(), /found a Promise \(await it first\)/],
        [gone, /resid_post\.1: the value f32\[9, 48\] has been disposed of/],
        [foreign, /resid_post\.1: the value f32\[9, 48\] lives on another device/],
      ] as const) {
        expect(() => {
          event.value = wrong as Tensor;
        }).toThrow(message);
      }
      event.value = scaleRows(event.value, [4, 8], 3);
      replaced.push(event.value);
    }
    const { logits } = await readAll({ logits: step.value });
    expectClose(logits, await logitsOf(model, prompt, { edits: [scale("resid_post.1", [4, 8], 3)] }), CLOSE);
    expect(replaced.map((tensor) => tensor.disposed)).toEqual([false]); // it is the caller's
    replaced[0]!.dispose();
  });

  test("can be broken off, which gives its memory back and keeps what was copied", async () => {
    const { model, device, prompt } = await setUp();
    const before = device.memory.liveBuffers;
    let kept: Tensor | undefined;
    for (const event of model.walk(prompt)) {
      if (event.site === "resid_mid.1") kept = copy(event.value);
      if (event.site === "mlp_act.1") break;
    }
    expect(device.memory.liveBuffers).toBe(before + 1);
    const { x } = await readAll(model.run(prompt, { taps: { x: tap("resid_mid.1") } }));
    expectClose((await readAll({ kept })).kept, x, CLOSE);
    expect(device.memory.liveBuffers).toBe(before);
  });

  test("runs in lockstep with another, and hands values over", async () => {
    const { model, prompt } = await setUp();
    const other = model.promptFromIds(randomIds(9, 40));
    const unpatched = await logitsOf(model, prompt);
    const sites = ["embed", "resid_post.0", "resid_post.1"];
    const [from, to] = [
      model.walk(other, (s) => sites.includes(s)),
      model.walk(prompt, (s) => sites.includes(s)),
    ];
    const passed: string[] = [];
    let handed: Tensor | undefined;
    let [a, b] = [from.next(), to.next()];
    for (; !a.done && !b.done; [a, b] = [from.next(), to.next()]) {
      passed.push(`${a.value.site} ${b.value.site}`);
      if (a.value.site === "resid_post.1") b.value.value = handed = copy(a.value.value);
    }
    handed?.dispose();
    const logits = await readAll({ a: a.value as Tensor, b: b.value as Tensor });
    expectClose(logits.b, logits.a, CLOSE);
    expect(() => expectClose(logits.b, unpatched, CLOSE)).toThrow();
    expect(passed).toEqual(sites.map((site) => `${site} ${site}`));
  });
});

test("a walk that is suspended is not disturbed by runs over more positions", async () => {
  const folder = mkdtempSync(join(tmpdir(), "xpatch-context-"));
  cpSync("test/fixtures/llama-gqa-tied/model", folder, { recursive: true });
  const config = join(folder, "config.json");
  const long = { ...JSON.parse(readFileSync(config, "utf8")), max_position_embeddings: 1024 };
  writeFileSync(config, JSON.stringify(long));
  const model = await loadModel(folder, { device: await testDevice() });
  const [short, longer] = [8, 300].map((length) => model.promptFromIds(randomIds(length, length))) as [
    Prompt,
    Prompt,
  ];
  const expected = await model.run(short).logits!.read();
  const walk = model.walk(short, (site) => site === "attn_in.0");
  walk.next();
  model.run(longer).logits!.dispose();
  const { value: logits } = walk.next();
  expect(await (logits as Tensor).read()).toEqual(expected);
  rmSync(folder, { recursive: true });
  model.dispose();
});

describe("memory", () => {
  /** Bytes and buffers in use must come back to where they were, and the pool must stop growing. */
  async function expectFlat(model: PatchableModel, times: number, work: (i: number) => Promise<void> | void) {
    const { device } = model;
    for (let i = 0; i < 3; i++) await work(i);
    await device.sync();
    const before = device.memory;
    for (let i = 0; i < times; i++) {
      await work(i);
      if (i % 50 === 49) await device.sync();
    }
    await device.sync();
    expect(device.memory.liveBuffers).toBe(before.liveBuffers);
    expect(device.memory.liveBytes).toBe(before.liveBytes);
    return { before, after: device.memory };
  }

  test("is flat over a thousand runs", async () => {
    const { model, prompt } = await setUp("llama", 3);
    const { before, after } = await expectFlat(model, 1000, (i) => {
      const taps = { x: tap(`resid_post.${i % 3}`, -1) };
      const { x, logits } = model.run(prompt, { taps, edits: [zero("resid_post.0", i % 3)] });
      x.dispose();
      logits!.dispose();
    });
    expect(after.freeBytes).toBeLessThanOrEqual(2 * (before.freeBytes + before.liveBytes));
  });

  test("is flat over resumed runs and generations", async () => {
    const { model, prompt } = await setUp("llama", 4);
    await expectFlat(model, 40, async () => {
      using recording = model.record([prompt, prompt]);
      const variants = [{ prompt: 1, edits: [zero("resid_post.0", 2)] }];
      const { logits, x } = resume(recording, variants, { taps: { x: tap("q.2", 3) } });
      logits.dispose();
      (x as Tensor).dispose();
    });
    await expectFlat(model, 10, async (i) => {
      const edits = [scale("resid_post.1", -1, 2)];
      await model.generate([prompt, prompt], { maxNewTokens: 3, edits, stopIds: [i] });
    });
  });

  test("comes back after errors, before and in the middle of a run", async () => {
    const { model, prompt } = await setUp("llama", 5);
    await expectFlat(model, 20, () => {
      const wrongKeys = set("pattern.2", -1, new Float32Array(4)); // found out when layer 2 comes by
      const taps = { x: tap("resid_post.0"), y: tap("pattern.1") };
      expect(() => model.run(prompt, { taps, edits: [wrongKeys] })).toThrow(SiteError);
      expect(() => model.run(prompt, { taps, edits: [zero("embed", 5)] })).toThrow(PromptError);
    });
    await expectFlat(model, 5, async () => {
      const late = zero("resid_post.0", 7);
      const first = (await model.generate(prompt, { maxNewTokens: 1, stopIds: [] })).ids;
      const ended = await model.generate(prompt, { maxNewTokens: 4, edits: [late], stopIds: first });
      expect(ended.unfired).toHaveLength(1);
      const nan = [scale("resid_post.0", -1, 1), addVector("resid_post.1", -1, Array(48).fill(Number.NaN))];
      await expect(model.generate(prompt, { maxNewTokens: 4, edits: nan })).rejects.toThrow(GenerationError);
    });
  });

  test("comes back from walks broken off anywhere", async () => {
    const { model, device, prompt } = await setUp("llama", 4);
    const sites = siteNames(model.sites);
    const before = device.memory.liveBuffers;
    fc.assert(
      fc.property(fc.nat({ max: sites.length - 1 }), fc.boolean(), (stop, throws) => {
        const walkOn = () => {
          for (const event of model.walk(prompt)) {
            if (event.site !== sites[stop]) continue;
            if (throws) throw new Error("enough");
            break;
          }
        };
        if (throws) expect(walkOn).toThrow("enough");
        else walkOn();
        expect(device.memory.liveBuffers).toBe(before);
      }),
      { numRuns: 40 },
    );
  });
});
