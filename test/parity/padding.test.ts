import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { writeSafetensors } from "../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { checkFolder } from "../../src/parity/check-folder.ts";
import { type Golden, GoldenFile } from "../../src/parity/golden-file.ts";
import { testDevice } from "../helpers/device.ts";

/** Goldens of batches that are padded beyond their longest text. The padded CLIP and SigLIP cases are transformers 5.24's. */

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

async function readAll(path: string): Promise<Map<string, Golden>> {
  await using file = await GoldenFile.open(path);
  const read = new Map<string, Golden>();
  for (const name of file.names) read.set(name, await file.read(name));
  return read;
}

/** A folder with goldens of our own making, and the checkpoint of a fixture. */
async function folderOf(
  fixture: string,
  json: object,
  goldens: ReadonlyMap<string, Golden>,
): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "parity-padding-"));
  folders.push(folder);
  const checkpoint = `model`;
  cpSync(resolve(`test/fixtures/${fixture}/model`), join(folder, checkpoint), { recursive: true });
  writeFileSync(join(folder, "case.json"), JSON.stringify({ ...json, checkpoint }));
  const tensors = [...goldens].map(([name, { shape, values }]) => {
    const stored = values instanceof Float32Array ? "F32" : values instanceof Int32Array ? "I32" : "U32";
    return { name, stored, shape, data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) };
  });
  const chunks: Uint8Array[] = [];
  for await (const chunk of writeSafetensors(tensors as Parameters<typeof writeSafetensors>[0]))
    chunks.push(chunk);
  writeFileSync(join(folder, "golden.safetensors"), Buffer.concat(chunks));
  return folder;
}

const TOLERANCE = { rtol: 1e-4, atol: 1e-4 };
const TEXTS = ["a photo of a dog", "gray"];

describe.each([
  ["clip", "padded to 24, the longest has 13: with a mask and without"],
  ["siglip", "padded to the longest (12) and to the context (16), without masks"],
])("%s: %s", (kind) => {
  const path = `test/fixtures/${kind}-padded`;

  test("agrees with transformers, and everything is compared", async () => {
    const report = await checkFolder(path, await testDevice());
    expect(report.checks.filter(({ passed }) => !passed)).toEqual([]);
    expect(report.notRun).toEqual([]);
    expect(report.checks.map(({ name }) => name)).toEqual(
      expect.arrayContaining(
        ["case0", "case1"].flatMap((name) => [
          `${name}/text.attn_pattern.1`,
          `${name}/text.resid_post.2`,
          `${name}/text_embeds`,
          `${name}/in.input_ids, from the texts`,
        ]),
      ),
    );
    expect(report.passed).toBe(true);
  });

  test("a row of a text that is off is found, and padding that CLIP masks is not looked at", async () => {
    const goldens = await readAll(join(path, "golden.safetensors"));
    const golden = goldens.get("case0/text.resid_post.2")!;
    const [, length, width] = golden.shape as [number, number, number];
    const nudged = (row: number) => {
      const values = Float32Array.from(golden.values);
      values[row * width] = Number.NaN;
      return new Map(goldens).set("case0/text.resid_post.2", { shape: golden.shape, values });
    };
    const failed = async (row: number) => {
      const cases = [
        { texts: TEXTS, images: [] },
        { texts: TEXTS, images: [] },
      ];
      const folder = await folderOf(kind, { tolerance: TOLERANCE, cases }, nudged(row));
      const { checks } = await checkFolder(folder, await testDevice());
      return checks.filter(({ passed }) => !passed).map(({ name }) => name);
    };
    expect(await failed(length + 4)).toEqual(["case0/text.resid_post.2"]);
    const padding = kind === "clip" ? [] : ["case0/text.resid_post.2"];
    expect(await failed(2 * length - 1)).toEqual(padding);
  });
});

describe("masks that xpatch computes nothing for are refused by name", () => {
  async function masked(kind: string, row: readonly number[]): Promise<string> {
    const goldens = await readAll(`test/fixtures/${kind}-padded/golden.safetensors`);
    const own = new Map([...goldens].filter(([name]) => name.startsWith("case1/")));
    const renamed = new Map([...own].map(([name, golden]) => [name.replace("case1", "case0"), golden]));
    const [, length] = renamed.get("case0/in.input_ids")!.shape as [number, number];
    const values = Int32Array.from({ length: 2 * length }, (_, i) => row[i % length] ?? 1);
    renamed.set("case0/in.attention_mask", { shape: [2, length], values });
    return folderOf(kind, { tolerance: TOLERANCE, cases: [{ texts: TEXTS, images: [] }] }, renamed);
  }

  test("SigLIP's padding", async () => {
    const folder = await masked("siglip", [...new Array(15).fill(1), 0]);
    await expect(checkFolder(folder, await testDevice())).rejects.toThrow(
      /in\.attention_mask: expected no position masked: SigLIP reads its padding/,
    );
  });

  test("padding in front", async () => {
    const folder = await masked("clip", [0]);
    await expect(checkFolder(folder, await testDevice())).rejects.toThrow(
      /in\.attention_mask: expected padding behind the texts only/,
    );
  });
});

describe("prompts of a decoder, padded behind the longest", () => {
  const EXTRA = 3;

  /** The goldens of the fixture's first case, with columns behind them that hold no number. */
  async function widened(lastLogits: boolean): Promise<string> {
    const goldens = await readAll("test/fixtures/llama/golden.safetensors");
    const { shape: inputs } = goldens.get("case0/in.input_ids")!;
    const length = inputs[1]!;
    const kept = ["in.input_ids", "in.attention_mask", "resid_post.2", "attn_pattern.1", "logits"];
    const wide = new Map<string, Golden>();
    for (const name of kept) {
      const golden = goldens.get(`case0/${name}`);
      if (!golden) continue;
      const attention = name.startsWith("attn_pattern");
      const shape = golden.shape.map((size, axis) =>
        size === length && (attention ? axis >= 2 : axis === 1) ? size + EXTRA : size,
      );
      const size = shape.reduce((a, b) => a * b, 1);
      const filler = name.startsWith("in.") ? 0 : Number.NaN;
      const values = new (golden.values.constructor as Float32ArrayConstructor)(size).fill(filler);
      // Every element to where it has the same indices.
      golden.values.forEach((value, flat) => {
        let rest = flat;
        let at = 0;
        let stride = 1;
        for (let axis = shape.length - 1; axis >= 0; axis--) {
          at += (rest % golden.shape[axis]!) * stride;
          rest = Math.floor(rest / golden.shape[axis]!);
          stride *= shape[axis]!;
        }
        values[at] = value;
      });
      wide.set(`case0/${name}`, { shape, values });
    }
    if (lastLogits) wide.set("case0/logits_last", { shape: [1, 448], values: new Float32Array(448) });
    const { default: json } = await import("../fixtures/llama/case.json", { with: { type: "json" } });
    const { text } = json.cases[0]!;
    return folderOf("llama", { tolerance: TOLERANCE, cases: [{ text }] }, wide);
  }

  test("agree, and the padding is not looked at", async () => {
    const { checks, passed } = await checkFolder(await widened(false), await testDevice());
    expect(checks.filter((check) => !check.passed)).toEqual([]);
    expect(checks.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["case0/resid_post.2", "case0/attn_pattern.1", "case0/logits"]),
    );
    expect(passed).toBe(true);
  });

  test("a golden that holds padding only is refused, not passed", async () => {
    await expect(checkFolder(await widened(true), await testDevice())).rejects.toThrow(
      /logits_last: holds no position of any prompt, only padding/,
    );
  });
});
