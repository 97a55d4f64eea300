import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  ControlVector,
  controlVectorOf,
  decodeControlVector,
  encodeControlVector,
} from "../../src/analysis/vectors/control-vector.ts";
import {
  encodeTaskVectors,
  extractTaskVectors,
  StoredTaskVectors,
} from "../../src/analysis/vectors/task-vectors.ts";
import { editArgument, editOf } from "../../src/cli/options/edit-argument.ts";
import { CheckpointError, SiteError, XpatchError } from "../../src/errors.ts";
import { encodeGguf } from "../../src/model/checkpoint/gguf/gguf-writer.ts";
import { type Edit, set } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { expectClose } from "../helpers/compare.ts";
import { buildGguf, text, u32 } from "../helpers/gguf-builder.ts";
import { fixtureModel, readAll } from "../helpers/model.ts";

// What gguf-py writes, in the calls of repeng (scripts/make-control-vector.py): ((i mod 7) − 3) · layer / 8.
const GOLDEN = new Uint8Array(
  readFileSync(join(import.meta.dirname, "../fixtures/control-vectors/llama.gguf")),
);
const golden = (layer: number) => Float32Array.from({ length: 48 }, (_, i) => (((i % 7) - 3) * layer) / 8);

const folder = mkdtempSync(join(tmpdir(), "xpatch-control-"));
afterAll(() => rmSync(folder, { recursive: true }));

let model: PatchableModel;
beforeAll(async () => {
  model = await fixtureModel("llama");
});

test("a file of gguf-py is read, in the order of its layers, and written with the same content", async () => {
  const vector = await decodeControlVector(GOLDEN);
  expect(vector.layers).toEqual([1, 2]);
  expect(vector.modelHint).toBe("llama");
  for (const layer of [1, 2]) expect(vector.at(layer)).toEqual(golden(layer));
  const written = encodeControlVector(vector);
  const again = await decodeControlVector(written);
  expect([...again.directions]).toEqual([...vector.directions]);
  expect(again.modelHint).toBe("llama");
  expect(Buffer.compare(encodeControlVector(again), written)).toBe(0);
  // Of the layer count, gguf-py's is unsigned and llama.cpp's own signed; neither is read by anybody.
  const { bytes } = buildGguf(
    {
      "general.architecture": text("controlvector"),
      "controlvector.model_hint": text("llama"),
      "controlvector.layer_count": { type: 5, value: 2 },
    },
    [1, 2].map((layer) => ({
      name: `direction.${layer}`,
      type: 0,
      shape: [48],
      data: new Uint8Array(golden(layer).buffer),
    })),
  );
  expect(Buffer.compare(written, bytes)).toBe(0);
});

test("direction.N is added behind block N, counted from 0: the residual stream there is the sum, those below are as before", async () => {
  const vector = await decodeControlVector(GOLDEN);
  const prompt = model.prompt("The capital of France is");
  const taps = {
    a: tap("resid_post.0", "all"),
    b: tap("resid_post.1", "all"),
    c: tap("resid_post.2", "all"),
  };
  const streams = async (edits: readonly Edit[]) => {
    const { a, b, c } = model.run(prompt, { taps, edits });
    return readAll({ a, b, c });
  };
  const plus = (values: Float32Array, layer: number, scale = 1) =>
    values.map((x, i) => x + scale * golden(layer)[i % 48]!);
  const plain = await streams([]);
  const first = await streams(vector.edits({ layers: [1], scale: 1.5 }));
  expect(plain.b.length).toBe(prompt.length * 48);
  expect(first.a).toEqual(plain.a);
  expectClose(first.b, plus(plain.b, 1, 1.5));
  // The block above computes with it: what it adds is another than before.
  const added = ({ b, c }: typeof plain) => c.map((x, i) => x - b[i]!);
  expect(added(first)).not.toEqual(added(plain));
  const below = await streams(vector.edits({ layers: [1] }));
  expectClose((await streams(vector.edits())).c, plus(below.c, 2));
});

test("task vectors less what they replace, added to it, are the task vectors in its place", async () => {
  const prompt = model.prompt("The capital of France is");
  const [of, bare] = await Promise.all(
    ["Italy, Rome. France,", "The capital of France is"].map(async (words) => {
      using vectors = extractTaskVectors(model, [model.prompt(words)]);
      const values = new Float32Array(await vectors.vectors.read());
      return new StoredTaskVectors(values, 48, vectors.origin);
    }),
  );
  const vector = controlVectorOf(of!, bare!);
  expect(vector.layers).toEqual([1, 2]);
  const [added, put] = await Promise.all(
    [vector.edits({ layers: [1], at: -1 }), [set("resid_post.1", -1, of!.at(1))]].map((edits) =>
      readAll({ logits: model.run(prompt, { edits }).logits }),
    ),
  );
  expectClose(added!.logits, put!.logits, { atol: 1e-4, rtol: 1e-4 });
  // As they are they bring twice what both have in common.
  const raw = controlVectorOf(of!, "nothing").edits({ layers: [1], at: -1 });
  const twice = await readAll({ logits: model.run(prompt, { edits: raw }).logits });
  expect(Math.max(...twice.logits.map((x, i) => Math.abs(x - put!.logits[i]!)))).toBeGreaterThan(0.01);
});

test("an edit of the command line adds or projects a control vector, and puts it in place of nothing", async () => {
  const vector = await decodeControlVector(GOLDEN);
  const edit = (words: string) => editOf(editArgument(`${words}=x.gguf`)[0]!, vector);
  expect(edit("add:resid_post.1@all*2")).toMatchObject({ operation: "add", site: "resid_post.1", amount: 2 });
  expect(edit("project-out:resid_post.2@-1").value).toEqual(golden(2));
  expect(() => edit("set:resid_post.1@-1")).toThrow(
    "expected one of add, project-out, project-onto, found set",
  );
  expect(() => edit("interpolate:resid_post.1@-1*0.5")).toThrow("found interpolate");
  expect(() => edit("add:attn_out.1@-1")).toThrow("of resid_post.<layer>, found attn_out.1");
  expect(() => edit("add:resid_post.0@-1")).toThrow("no direction of layer 0; there are those of 1, 2");
});

test("what is no control vector is refused by what was expected", async () => {
  const direction = (name: string, data = golden(1), shape = [data.length]) => ({
    name,
    type: 0,
    shape,
    data: new Uint8Array(data.buffer),
  });
  const named = { "general.architecture": text("controlvector"), "controlvector.layer_count": u32(1) };
  for (const [file, message] of [
    [
      buildGguf({ "general.architecture": text("llama") }, []),
      "general.architecture controlvector), found llama",
    ],
    [buildGguf({}, []), "found none"],
    [buildGguf(named, []), "expected at least one direction, found none"],
    [buildGguf(named, [direction("direction.0")]), "from 1 on, found one of layer 0"],
    [buildGguf(named, [direction("mean.1")]), "expected tensors direction.1, direction.2, … of F32"],
    [buildGguf(named, [direction("direction.1", golden(1), [6, 8])]), "F32 [6, 8]"],
    [buildGguf(named, [{ ...direction("direction.1"), type: 1, shape: [96] }]), "F16 [96]"],
    [
      buildGguf(named, [direction("direction.1"), direction("direction.2", golden(1).slice(0, 24))]),
      "of one width, found 48 and, of layer 2, 24",
    ],
  ] as const) {
    const error = await decodeControlVector(file.bytes, "x.gguf").catch((error) => error);
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toContain("x.gguf: ");
    expect(error.message).toContain(message);
  }
  expect(() => new ControlVector([[0, golden(1)]], "")).toThrow(SiteError);
  expect(() => encodeGguf({}, [{ name: "a", shape: [3], values: golden(1) }])).toThrow(
    "do not fill the shape [3]",
  );
});

test("damaged files are read as they are or refused, with typed errors", async () => {
  let seed = 3;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  let refused = 0;
  for (let trial = 0; trial < 400; trial++) {
    const bytes = GOLDEN.slice(0, trial % 4 === 0 ? random(GOLDEN.length) : GOLDEN.length);
    for (let n = random(3); n >= 0; n--) bytes[random(Math.min(bytes.length, 300))] = random(256);
    try {
      await decodeControlVector(bytes, "damaged.gguf");
    } catch (error) {
      expect(error).toBeInstanceOf(XpatchError);
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(100);
});

test("the command line: refused without a choice, made with one, and added to every token", async () => {
  const file = async (name: string, words: string) => {
    using vectors = extractTaskVectors(model, [model.prompt(words)]);
    writeFileSync(join(folder, name), await encodeTaskVectors(vectors));
    return join(folder, name);
  };
  const [of, bare, out] = [
    await file("of.safetensors", "Rome"),
    await file("bare.safetensors", "a"),
    join(folder, "v.gguf"),
  ];
  const xpatch = (...args: string[]) =>
    spawnSync(process.execPath, ["dist/cli/main.js", ...args], { encoding: "utf8" });
  const unsure = xpatch("control-vector", of, "--out", out);
  expect(unsure.status).toBe(2);
  expect(unsure.stderr).toContain("expected either --less or --as-is");
  const made = xpatch("control-vector", of, "--less", bare, "--out", out, "--json");
  expect(made.status, made.stderr).toBe(0);
  expect(JSON.parse(made.stdout)).toMatchObject({ layers: [1, 2], leftOut: [0] });
  const generate = [
    "generate",
    "--model",
    "test/fixtures/llama/model",
    "--prompt",
    "The",
    "--max-new-tokens",
    "4",
    "--json",
  ];
  const steered = xpatch(...generate, "--control", `${out}*30@2`);
  expect(steered.status, steered.stderr).toBe(0);
  const report = JSON.parse(steered.stdout);
  expect(report.answer.unfired).toEqual([]);
  const vector = await decodeControlVector(new Uint8Array(readFileSync(out)));
  const prompt = model.prompt("The");
  const edits = vector.edits({ scale: 30, layers: [2], at: { start: 0, end: prompt.length + 3 } });
  const { ids } = await model.generate(prompt, { maxNewTokens: 4, edits });
  expect(report.answer.ids).toEqual(ids);
  expect(ids).not.toEqual((await model.generate(prompt, { maxNewTokens: 4 })).ids);
  const inPlace = xpatch(...generate, "--edit", `set:resid_post.1@-1=${out}`);
  expect(inPlace.status).toBe(1);
  expect(inPlace.stderr).toContain("control vectors are directions");
  const wrong = xpatch(...generate, "--control", of);
  expect(wrong.stderr).toContain("expected a control vector, a GGUF file");
});
