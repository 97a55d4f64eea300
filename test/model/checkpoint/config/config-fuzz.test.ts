import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { XpatchError } from "../../../../src/errors.ts";
import { memoryFolder } from "../../../../src/model/checkpoint/source/folder.ts";
import { promptFromIds } from "../../../../src/model/prompt/build-prompt.ts";
import { loadDualEncoder } from "../../../../src/patching/dual-encoder.ts";
import { loadModel } from "../../../../src/patching/model.ts";
import type { Device } from "../../../../src/tensor/device.ts";
import { utf8 } from "../../../helpers/bytes.ts";
import { testDevice } from "../../../helpers/device.ts";

// A config with one field changed, added or removed gives what transformers makes of it (scripts/make-config-golden.py),
// or is refused by the field's name; never other numbers.

type Json = Record<string, unknown>;
interface Case {
  readonly fixture: string;
  readonly set?: Json;
  readonly remove?: string;
  /** The config's own numbers, an error, or the first of the last row and their root mean square. */
  readonly outcome: "plain" | "refused" | readonly number[];
}
interface Golden {
  readonly plain: Readonly<Record<string, readonly number[]>>;
  readonly cases: readonly Case[];
}

const goldens = readdirSync("test/fixtures/configs").map(
  (name): Golden => JSON.parse(readFileSync(`test/fixtures/configs/${name}`, "utf8")),
);
const golden: Golden = {
  plain: Object.assign({}, ...goldens.map(({ plain }) => plain)),
  cases: goldens.flatMap(({ cases }) => cases),
};
const IDS = [20, 31, 42, 53, 64, 75, 86, 97, 108, 119, 130, 141];
const pixels = (height: number, width: number) => ({
  shape: [3, height, width] as const,
  data: Float32Array.from({ length: 3 * height * width }, (_, i) => Math.sin(i * 0.37)),
});
const PIXELS = pixels(56, 56);

function filesOf(fixture: string): Map<string, Uint8Array> {
  const folder = `test/fixtures/${fixture}/model`;
  return new Map(readdirSync(folder).map((name) => [name, readFileSync(`${folder}/${name}`)]));
}

function changed(config: Json, { set = {}, remove }: Case): Json {
  const copy = structuredClone(config);
  const target = (path: string): [Json, string] => {
    const [section, field] = path.split(".");
    return field === undefined ? [copy, section!] : [copy[section!] as Json, field];
  };
  for (const [path, value] of Object.entries(set)) {
    const [values, field] = target(path);
    values[field] = value;
  }
  if (remove !== undefined) {
    const [values, field] = target(remove);
    delete values[field];
  }
  return copy;
}

/** What the golden script computes, with a config in place of the fixture's. */
async function numbersOf(fixture: string, files: Map<string, Uint8Array>, device: Device): Promise<number[]> {
  const folder = memoryFolder(files, fixture);
  if (fixture === "clip" || fixture === "siglip") {
    using model = await loadDualEncoder(folder, { device });
    const ids = fixture === "clip" ? [572, ...IDS, 573] : [...IDS, 1, 1, 1, 1];
    const texts = model.texts([promptFromIds(model.tokenizer, ids)]);
    const images = model.images([PIXELS]);
    const [logits, text, image] = await device.read([
      model.similarity(images.embeds, texts.embeds) as typeof images.embeds,
      texts.embeds,
      images.embeds,
    ]);
    return summary([logits![0]!, ...text!.slice(0, 3), ...image!.slice(0, 3)]);
  }
  using model = await loadModel(folder, { device });
  const [pictures, places] =
    fixture === "llava"
      ? [[PIXELS], Array(16).fill(431)]
      : fixture === "idefics2"
        ? [[PIXELS], Array(5).fill(432)]
        : fixture.endsWith("_vl")
          ? [[pixels(84, 112)], Array(12).fill(321)]
          : [[], []];
  const ids = [...IDS.slice(0, 4), ...places, ...IDS.slice(4)];
  const answer = model.config.encoder ? IDS.slice(0, 2) : [];
  const { logits } = model.run(model.promptFromIds(ids, pictures, answer));
  return summary([...(await logits!.read())]);
}

function summary(row: readonly number[]): number[] {
  return [...row.slice(0, 4), Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / row.length)];
}

/** Refused although transformers does without. */
const STRICTER =
  /[".](model_type|max_position_embeddings|head_dim|image_size|quantization_config|compression_config)"|"gelu_10"|softcapping":-|"use_bidirectional_attention":true|"(is_gated_act|tie_word_embeddings)":"no"/;

const isClose = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((x, i) => Math.abs(x - b[i]!) <= 1e-4 * (1 + Math.abs(b[i]!)));

/** A message names the field, or the tensors that the config does not fit. */
function namesField(message: string, { set, remove }: Case): boolean {
  const fields = [...Object.keys(set ?? {}), remove ?? ""].map((path) => path.split(".").at(-1)!);
  const inner = Object.values(set ?? {}).flatMap((value) => (value ? Object.keys(value) : []));
  const tensors =
    /the config does not fit the tensors|has no tensor|expected pixel values|Expected 1[26] .* tokens/;
  return tensors.test(message) || [...fields, ...inner].some((field) => field && message.includes(field));
}

test.each(Object.keys(golden.plain))("%s: the config as it is", async (fixture) => {
  const found = await numbersOf(fixture, filesOf(fixture), await testDevice());
  expect(isClose(found, golden.plain[fixture]!), `${found} for ${golden.plain[fixture]}`).toBe(true);
});

test.each(Object.keys(golden.plain))(
  "%s: one field changed",
  async (fixture) => {
    const device = await testDevice();
    const files = filesOf(fixture);
    const config = JSON.parse(new TextDecoder().decode(files.get("config.json")));
    const wrong: string[] = [];
    let computed = 0;
    const cases = golden.cases.filter((item) => item.fixture === fixture);
    for (const item of cases) {
      const what = JSON.stringify(item.set ?? { remove: item.remove });
      files.set("config.json", utf8(JSON.stringify(changed(config, item))));
      try {
        const found = await numbersOf(fixture, files, device);
        const plain = golden.plain[fixture]!;
        const expected = typeof item.outcome === "string" ? plain : item.outcome;
        // transformers refuses what has another type (48.0 for 48, which is one number here), even where nobody reads it.
        if (isClose(found, expected)) computed++;
        else wrong.push(`${what}: ${found.slice(0, 2)} for ${item.outcome}`);
      } catch (error) {
        if (!(error instanceof XpatchError)) throw error;
        if (!namesField(error.message, item)) wrong.push(`${what}: ${error.message}`);
        if (item.outcome === "plain" && !STRICTER.test(what))
          wrong.push(`${what}: refused though plain: ${error.message}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(computed).toBeGreaterThan(Math.min(60, 0.4 * cases.length));
  },
  600_000,
);
