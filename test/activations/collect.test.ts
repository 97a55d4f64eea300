import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { StoreSetting } from "../../src/activations/manifest.ts";
import { StoreWriter } from "../../src/activations/store-writer.ts";
import {
  ArgumentError,
  type CollectOptions,
  collectActivations,
  FileError,
  loadImage,
  openActivations,
  type Prompt,
  readActivations,
  SafetensorsFile,
  SiteError,
  tap,
  XpatchError,
} from "../../src/index.ts";
import { memorySource } from "../../src/model/checkpoint/source/sources.ts";
import { f16Bits, f16Value } from "../../src/tensor/dtype.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose } from "../helpers/compare.ts";
import { FileServers, serveFiles } from "../helpers/file-server.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

const model = await fixtureModel("llama");
const prompts = Array.from({ length: 30 }, (_, i) => model.promptFromIds(randomIds(3 + ((i * 7) % 11), i)));
const SITES = ["resid_post.0", "mlp_act.2"] as const;
const SMALL = { sites: SITES, shardBytes: 20_000, batchTokens: 64 };

let folder: string;
beforeEach(async () => {
  folder = join(await mkdtemp(join(tmpdir(), "xpatch-activations-")), "store");
});
afterEach(() => rm(join(folder, ".."), { recursive: true, force: true }));

/** Every file of the store, as its bytes in base64. */
async function filesOf(path: string): Promise<Record<string, string>> {
  const names = (await readdir(path)).sort();
  const contents = await Promise.all(names.map((name) => readFile(join(path, name), "base64")));
  return Object.fromEntries(names.map((name, i) => [name, contents[i]!]));
}

/** All rows of a site: prompt, position and token of each, and the vectors. */
async function rowsOf(path: string, site: (typeof SITES)[number], batchRows = 4096) {
  const [index, vectors]: [number[][], number[]] = [[], []];
  for await (const batch of readActivations(path, { sites: site, batchRows })) {
    expect(batch.rows).toBeLessThanOrEqual(Math.max(8, batchRows));
    expect(batch.vectors.length).toBe(batch.rows * batch.width);
    for (let i = 0; i < batch.rows; i++)
      index.push([batch.prompts[i]!, batch.positions[i]!, batch.tokens[i]!]);
    vectors.push(...batch.vectors);
  }
  return { index, vectors };
}

describe.each(["safetensors", "parquet"] as const)("%s", (files) => {
  test("rows are what taps of single runs give, in the order of the prompts", async () => {
    const store = await collectActivations(model, prompts, folder, { ...SMALL, files });
    expect(store.manifest.complete).toBe(true);
    expect(store.manifest.shards.length).toBeGreaterThan(3);
    expect(store.prompts).toBe(30);
    expect(store.rows).toBe(2 * prompts.reduce((sum, { length }) => sum + length, 0));
    for (const site of SITES) {
      const { index, vectors } = await rowsOf(folder, site, 24);
      expect(index).toEqual(prompts.flatMap(({ ids }, p) => ids.map((id, position) => [p, position, id])));
      const alone = await Promise.all(
        prompts.map((prompt) => model.run(prompt, { taps: { x: tap(site) } }).x.read()),
      );
      expectClose(
        vectors,
        alone.flatMap((x) => [...x]),
        { atol: 1e-5, rtol: 1e-5 },
      );
    }
  });

  test("a run that is interrupted, again and again, leaves the bytes of one that is not", async () => {
    const options = { ...SMALL, files };
    const whole = join(folder, "..", "whole");
    await collectActivations(model, prompts, whole, options);
    const computed: number[] = [];
    for (const until of [4, 4, 13, 22]) {
      const broken = function* () {
        yield* prompts.slice(0, until);
        throw new Error("the power is gone");
      };
      await expect(collectActivations(model, broken(), folder, options)).rejects.toThrow("the power is gone");
      computed.push((await openActivations(folder)).prompts);
    }
    expect(computed.at(-1)).toBeGreaterThan(computed[0]!);
    // What a killed program leaves beside.
    await writeFile(join(folder, `resid_post.0-00099.${files}.123-abc.tmp`), "half");
    await writeFile(
      join(
        folder,
        `resid_post.0-${String((await openActivations(folder)).manifest.shards.length).padStart(5, "0")}.${files}`,
      ),
      "half",
    );
    let last = { prompts: 0, stored: 0, rows: 0 };
    await collectActivations(model, prompts, folder, {
      ...options,
      onProgress: (progress) => (last = progress),
    });
    expect(last.prompts).toBe(30);
    expect(last.stored).toBe(computed.at(-1));
    const { [`resid_post.0-00099.${files}.123-abc.tmp`]: _, ...written } = await filesOf(folder);
    expect(written).toEqual(await filesOf(whole));
  });

  test("damaged and missing files are errors that say what was expected", async () => {
    await collectActivations(model, prompts, folder, { ...SMALL, files });
    const read = async () => {
      for await (const _ of readActivations(folder)) {
        // All rows.
      }
    };
    const path = join(folder, `mlp_act.2-00001.${files}`);
    const bytes = await readFile(path);
    await truncate(path, bytes.length - 100);
    await expect(read()).rejects.toThrow(XpatchError);
    await expect(read()).rejects.toThrow(/mlp_act\.2-00001/);
    await writeFile(path, await readFile(join(folder, `mlp_act.2-00002.${files}`)));
    await expect(read()).rejects.toThrow(/expected .*, as the store says, found/);
    await rm(path);
    await expect(read()).rejects.toThrow(
      /expected mlp_act\.2-00001\.\w+, which activations\.json names, found none/,
    );
    for (let cut = 0; cut < bytes.length; cut += Math.ceil(bytes.length / 40)) {
      const damaged = Buffer.from(bytes);
      damaged.fill(0xff, cut, cut + 9);
      await writeFile(path, damaged);
      await read().catch((error) => expect(error).toBeInstanceOf(XpatchError));
    }
  });
});

test("single positions, the last tokens, and the other dtype", async () => {
  const options: CollectOptions = { sites: "resid_post.*", at: -1, dtype: "f16" };
  const store = await collectActivations(model, prompts, folder, options);
  expect(store.sites).toEqual(["resid_post.0", "resid_post.1", "resid_post.2"]);
  expect(store.rows).toBe(90);
  const { index, vectors } = await rowsOf(folder, "resid_post.0");
  expect(index).toEqual(prompts.map(({ ids, last }, p) => [p, last, ids[last]]));
  const { x } = model.run(prompts, { taps: { x: tap("resid_post.0", -1) } });
  expect(vectors).toEqual(Array.from((await x.read()) as Float32Array, (value) => f16Value(f16Bits(value))));
  const name = "resid_post.0-00000.safetensors";
  const file = await SafetensorsFile.open(memorySource(await readFile(join(folder, name)), name));
  expect(file.entry("vectors").stored).toBe("F16");
  expect([...file.metadata]).toEqual([
    ["format", "xpatch.activations.1"],
    ["model", model.name],
    ["site", "resid_post.0"],
    ["layer", "0"],
  ]);
});

test("of few positions it is the prompts that end a shard", async () => {
  const options: CollectOptions = { sites: "resid_post.0", at: -1, shardBytes: 8000 };
  const { shards } = (await collectActivations(model, prompts, folder, options)).manifest;
  const tokens = prompts.reduce((sum, { length }) => sum + length, 0);
  expect(30 * 48 * 4).toBeLessThan(8000);
  expect(shards.length).toBe(Math.ceil((30 * 48 * 4 + 16 * tokens) / 8200));
});

test("prompts and sites can be asked for; prompts come with their tokens", async () => {
  const store = await collectActivations(model, prompts, folder, SMALL);
  const seen = new Map<string, Set<number>>();
  for await (const { site, layer, prompts: of } of store.read({ prompts: { start: 7, end: 10 } })) {
    expect(layer).toBe(Number(site.split(".")[1]));
    const own = seen.get(site) ?? new Set();
    seen.set(site, new Set([...own, ...of]));
  }
  expect([...seen].map(([site, of]) => [site, [...of]])).toEqual(SITES.map((site) => [site, [7, 8, 9]]));
  const listed = new Set<number>();
  for await (const batch of store.read({ sites: "mlp_act.2", prompts: [3, 28] }))
    for (const p of batch.prompts) listed.add(p);
  expect([...listed]).toEqual([3, 28]);
  const kept = [];
  for await (const prompt of store.readPrompts({ prompts: [3, 28] })) kept.push(prompt);
  expect(kept.map(({ prompt, ids, tokens }) => [prompt, ids, tokens])).toEqual(
    [3, 28].map((p) => [p, [...prompts[p]!.ids], [...prompts[p]!.tokens]]),
  );
  await expect(store.read({ sites: "resid_post.1" }).next()).rejects.toThrow(SiteError);
  await expect(store.read({ sites: "resid_pos.0" as never }).next()).rejects.toThrow(
    /nearest is "resid_post\.0"/,
  );
  await expect(store.read({ batch: 3 } as never).next()).rejects.toThrow(ArgumentError);
});

describe("nothing is overwritten", () => {
  test.each<[string, Partial<CollectOptions>, RegExp]>([
    ["sites", { sites: "resid_post.0" }, /begun with sites \[.*now \[/],
    ["positions", { at: -1 }, /begun with positions "all", now -1/],
    ["dtype", { dtype: "f16" }, /begun with dtype "f32", now "f16"/],
    ["files", { files: "parquet" }, /begun with files "safetensors", now "parquet"/],
    ["size of shards", { shardBytes: 7 }, /begun with shardBytes 20000, now 7/],
  ])("by a run with other %s", async (_, other, message) => {
    await collectActivations(model, prompts, folder, SMALL);
    const before = await filesOf(folder);
    const attempt = collectActivations(model, prompts, folder, { ...SMALL, ...other });
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toThrow(FileError);
    expect(await filesOf(folder)).toEqual(before);
  });

  test("by other prompts, or fewer; more are added", async () => {
    await collectActivations(model, prompts.slice(0, 20), folder, SMALL);
    const before = await filesOf(folder);
    const swapped = [...prompts.slice(0, 5), prompts[6]!, prompts[5]!, ...prompts.slice(7)];
    await expect(collectActivations(model, swapped, folder, SMALL)).rejects.toThrow(
      /prompts \d+ to \d+ are others than those that the store was begun with/,
    );
    await expect(collectActivations(model, prompts.slice(0, 9), folder, SMALL)).rejects.toThrow(
      /expected the 20 prompts that are in the store, and perhaps more, found 9/,
    );
    expect(await filesOf(folder)).toEqual(before);
    const store = await collectActivations(model, prompts, folder, SMALL);
    expect([store.prompts, store.manifest.complete]).toEqual([30, true]);
    expect((await rowsOf(folder, "resid_post.0")).index).toEqual(
      prompts.flatMap(({ ids }, p) => ids.map((id, position) => [p, position, id])),
    );
  });

  test("in a folder with other files, which are not read as a store either", async () => {
    const other = join(folder, "..");
    await writeFile(join(other, "thesis.tex"), "mine");
    await expect(collectActivations(model, prompts, other, SMALL)).rejects.toThrow(
      /expected an empty folder, or one with activations\.json to go on with, found thesis\.tex/,
    );
    await expect(openActivations(other)).rejects.toThrow(
      /expected an activation store, which has activations\.json/,
    );
    expect(await readdir(other)).toEqual(["thesis.tex"]);
    await expect(openActivations(join(other, "none"))).rejects.toThrow(FileError);
    await expect(collectActivations(model, prompts, join(other, "thesis.tex"), SMALL)).rejects.toThrow(
      /thesis\.tex/,
    );
    expect(await readFile(join(other, "thesis.tex"), "utf8")).toBe("mine");
  });

  test.each([
    ["no JSON", "{"],
    ["no object", "[]"],
    ['format "x"', `{"format":"x"}`],
    ["another version", `{"format":"xpatch.activations.2"}`],
    [
      "no sites",
      JSON.stringify({
        format: "xpatch.activations.1",
        model: "m",
        family: "f",
        weights: [],
        adapters: [],
        sites: [],
      }),
    ],
  ])("by a run with a damaged manifest: %s", async (_, text) => {
    await collectActivations(model, prompts.slice(0, 3), folder, SMALL);
    await writeFile(join(folder, "activations.json"), text);
    const before = await filesOf(folder);
    for (const attempt of [
      () => openActivations(folder),
      () => collectActivations(model, prompts, folder, SMALL),
    ]) {
      await expect(attempt()).rejects.toThrow(/expected the activations\.json of an activation store/);
    }
    expect(await filesOf(folder)).toEqual(before);
  });
});

test("a store is read over HTTP, of its files what is asked for", async () => {
  await collectActivations(model, prompts, folder, SMALL);
  const files = new Map<string, Uint8Array>();
  for (const name of await readdir(folder)) files.set(`acts/${name}`, await readFile(join(folder, name)));
  const [servers, log] = [new FileServers(), [] as string[]];
  try {
    const store = await openActivations(`${await servers.start(serveFiles(files, log))}/acts`);
    let rows = 0;
    for await (const batch of store.read({ sites: "resid_post.0", prompts: [0] })) rows += batch.rows;
    expect(rows).toBe(prompts[0]!.length);
    expect(
      log.filter((line) => line.includes("mlp_act")).length +
        log.filter((line) => line.includes("-00001")).length,
    ).toBe(0);
    expect(log.some((line) => line.includes("resid_post.0-00000"))).toBe(true);
  } finally {
    servers.close();
  }
});

test("what cannot be collected is refused before a folder is made", async () => {
  const collect = (options: object, of: Iterable<Prompt> = prompts) =>
    collectActivations(model, of, folder, options as CollectOptions);
  await expect(collect({ sites: "pattern.0" })).rejects.toThrow(/the features of pattern\.0 are keys/);
  await expect(collect({ sites: "resid_pst.0" })).rejects.toThrow(SiteError);
  await expect(collect({ sites: "resid_post.0", at: () => 0 })).rejects.toThrow(
    /expected at to be plain data/,
  );
  await expect(collect({ sites: "resid_post.0", dtype: "f16", files: "parquet" })).rejects.toThrow(
    /Parquet files take f32/,
  );
  await expect(collect({ site: "resid_post.0" })).rejects.toThrow(
    /options has no "site"; the nearest is "sites"/,
  );
  await expect(readdir(folder)).rejects.toThrow();
  const short = [prompts[1]!, prompts[0]!];
  expect(short.map(({ length }) => length)).toEqual([10, 3]);
  await expect(collect({ sites: "resid_post.0", at: 5 }, short)).rejects.toThrow(
    /^prompt 1: Expected a position from -3 to 2/,
  );
  await rm(folder, { recursive: true });
  await expect(collect({ sites: "resid_post.0" }, ["text" as never])).rejects.toThrow(
    /each prompt to be a Prompt/,
  );
});

test("of pictures the patches, in the language model and in the tower", async () => {
  const vlm = await fixtureModel("llava");
  const photo = await loadImage("test/fixtures/images/photo.png");
  const seen = ["Q:", "Look:"].map((text) => vlm.prompt([text, photo, "\nA:"]));
  const sites = ["vision.resid_post.0", "resid_post.0"] as const;
  const store = await collectActivations(vlm, seen, folder, { sites, at: { span: "image" }, image: 0 });
  for await (const batch of store.read()) {
    const { x } = vlm.run(seen, {
      taps: {
        x:
          batch.site === "resid_post.0"
            ? tap(batch.site, { span: "image" })
            : tap(batch.site, "all", { image: 0 }),
      },
    });
    const expected = await Promise.all((x as Tensor[]).map((each) => each.read()));
    expectClose(
      batch.vectors,
      expected.flatMap((each) => [...each]),
      { atol: 1e-5 },
    );
    const inTower = batch.site.startsWith("vision.");
    expect([...new Set(batch.tokens)].length).toBe(1);
    expect(batch.tokens[0]! < 0).toBe(inTower);
    const first = seen.map((prompt) => (inTower ? 0 : prompt.span("image").start));
    expect([batch.positions[0], batch.positions[batch.rows / 2]]).toEqual(first);
  }
  const blind = collectActivations(vlm, [...seen, vlm.prompt("Q:")], join(folder, "..", "blind"), { sites });
  await expect(blind).rejects.toThrow(/^prompt 2: .*prompt 0 has no image/);
  const other = await loadImage("test/fixtures/images/tall.png");
  const changed = [seen[0]!, vlm.prompt(["Look:", other, "\nA:"])];
  await expect(
    collectActivations(vlm, changed, folder, { sites, at: { span: "image" }, image: 0 }),
  ).rejects.toThrow(/prompts 0 to 1 are others/);
  const [kept] = [await store.readPrompts().next()];
  expect(kept.value!.spans["image"]).toMatchObject({ grid: { rows: 4, columns: 4 } });
});

test("of an encoder-decoder each stack's own tokens", async () => {
  const t5 = await fixtureModel("t5");
  const asked = [12, 7].map((n) => t5.promptFromIds(randomIds(n, n)));
  const store = await collectActivations(t5, asked, folder, {
    sites: ["encoder.resid_post.0", "resid_post.0"],
  });
  for await (const { site, tokens } of store.read()) {
    const expected = site.startsWith("encoder.")
      ? asked.map(({ ids }) => ids)
      : asked.map((p) => t5.sequenceOf(p).ids);
    expect([...tokens]).toEqual(expected.flat());
  }
});

test("a store of some megabytes is written and read back at a rate that is no accident (bench/activation-store.ts has figures)", async () => {
  const [width, rows, count] = [256, 100, 400];
  const setting: StoreSetting = {
    ...{ model: "none", family: "none", weights: [], adapters: [], sites: [{ site: "resid_post.0", width }] },
    ...{ positions: "all", image: null, dtype: "f32", files: "safetensors", shardBytes: 2 ** 24 },
  };
  const prompt = model.promptFromIds(randomIds(rows, 1));
  const vectors = Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i));
  const began = performance.now();
  const writer = await StoreWriter.open(folder, setting);
  for (let p = 0; p < count; p++) {
    const number = writer.next(prompt)!;
    const [prompts, positions] = [new Int32Array(rows).fill(number), Int32Array.from(prompt.ids.keys())];
    await writer.add(prompt, [
      { prompts, positions, tokens: Int32Array.from(prompt.ids), spelt: [], vectors },
    ]);
  }
  await writer.finish();
  let read = 0;
  for await (const batch of readActivations(folder, { batchRows: rows * 8 })) {
    for (let i = 0; i < batch.rows; i += 97) {
      expect(batch.positions[i]).toBe((read + i) % rows);
      expect(batch.vectors[i * width + 3]).toBe(vectors[((read + i) % rows) * width + 3]);
    }
    read += batch.rows;
  }
  expect(read).toBe(rows * count);
  // 41 MB both ways. On two busy cores it takes a third of a second.
  expect(performance.now() - began).toBeLessThan(8000);
});
