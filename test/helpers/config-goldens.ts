import { readdirSync, readFileSync } from "node:fs";
import { expect } from "vitest";
import { XpatchError } from "../../src/errors.ts";
import type { PixelValues } from "../../src/images/preprocess.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import { DUAL_ENCODER_KINDS } from "../../src/model/families/dual-encoder-kinds.ts";
import type { Device } from "../../src/tensor/device.ts";
import { utf8 } from "./bytes.ts";
import { ConfigReading } from "./config-reading.ts";
import { testDevice } from "./device.ts";

// What transformers makes of a fixture's config with one field changed, added or removed (scripts/config_changes.py).

export type Json = Record<string, unknown>;

/** Paths of fields that are taken out; values by path; and what is set together. */
interface Changes {
  readonly removed: readonly string[];
  readonly set: Readonly<Record<string, readonly unknown[]>>;
  readonly together: readonly Json[];
}

interface FixtureGolden {
  /** Of the config as it is: the first numbers of the last row, and their root mean square. */
  readonly plain: readonly number[];
  readonly refused: Changes;
  /** What leaves the numbers as they are. */
  readonly same: Changes;
  readonly numbers: readonly (readonly [change: string | Json, numbers: readonly number[]])[];
}

export interface ConfigCase {
  readonly set?: Json;
  readonly remove?: string;
  readonly outcome: "same" | "refused" | readonly number[];
}

/** By fixture, what a file of test/fixtures/configs has. */
export function readConfigGoldens(file: string): Readonly<Record<string, FixtureGolden>> {
  return JSON.parse(readFileSync(`test/fixtures/configs/${file}`, "utf8")).fixtures;
}

export function configCases({ refused, same, numbers }: FixtureGolden): ConfigCase[] {
  const of = ({ removed, set, together }: Changes, outcome: ConfigCase["outcome"]): ConfigCase[] => [
    ...removed.map((remove) => ({ remove, outcome })),
    ...Object.entries(set).flatMap(([path, values]) =>
      values.map((value) => ({ set: { [path]: value }, outcome })),
    ),
    ...together.map((each) => ({ set: each, outcome })),
  ];
  return [
    ...of(refused, "refused"),
    ...of(same, "same"),
    ...numbers.map(([change, outcome]) =>
      typeof change === "string" ? { remove: change, outcome } : { set: change, outcome },
    ),
  ];
}

/** Ids of the prompts that the goldens were made with. */
export const GOLDEN_IDS = [20, 31, 42, 53, 64, 75, 86, 97, 108, 119, 130, 141];

/** The goldens' pixel values of a size, of one picture or of so many tiles. */
export function goldenPixels(height: number, width: number, tiles = 1) {
  return {
    shape: [3, height, width] as const,
    data: Float32Array.from({ length: 3 * height * width * tiles }, (_, i) => Math.sin(i * 0.37)),
  };
}

/** What the goldens have of the numbers of a row. */
export function summary(row: readonly number[]): number[] {
  return [...row.slice(0, 4), Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / row.length)];
}

/** Runs the model in a folder on what the goldens were made with, and gives the {@link summary}. */
export type RunGolden = (folder: ReturnType<typeof memoryFolder>, device: Device) => Promise<number[]>;

export interface FuzzRules {
  /** What of a change (as JSON) or its message tells that a refusal names the field, beside its name. */
  readonly names: RegExp;
  /** Changes (as JSON) that are refused although transformers does without what they say. */
  readonly stricter: RegExp;
}

function filesOf(fixture: string): Map<string, Uint8Array> {
  const folder = `test/fixtures/${fixture}/model`;
  return new Map(
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => {
        const path = `${entry.parentPath}/${entry.name}`;
        return [path.slice(folder.length + 1), readFileSync(path)];
      }),
  );
}

function changed(config: Json, { set = {}, remove }: ConfigCase): Json {
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

const isClose = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((x, i) => Math.abs(x - b[i]!) <= 1e-4 * (1 + Math.abs(b[i]!)));

/** A message names the field, or the tensors that the config does not fit. */
function namesField(message: string, { set, remove }: ConfigCase, names: RegExp): boolean {
  const fields = [...Object.keys(set ?? {}), remove ?? ""].map((path) => path.split(".").at(-1)!);
  const inner = Object.values(set ?? {}).flatMap((value) => (value ? Object.keys(value) : []));
  return names.test(message) || [...fields, ...inner].some((field) => field && message.includes(field));
}

/**
 * The numbers that a case has, if not those of the config as it is. A null that transformers refuses is read as if the field were
 * not there.
 */
function expectedOf({ set = {}, outcome }: ConfigCase, cases: readonly ConfigCase[]) {
  const [[path, value] = []] = Object.entries(set);
  const isNull = outcome === "refused" && value === null;
  const found = isNull ? cases.find(({ remove }) => remove === path)?.outcome : outcome;
  return typeof found === "string" ? undefined : found;
}

export async function expectPlain(fixture: string, golden: FixtureGolden, run: RunGolden): Promise<void> {
  const found = await run(memoryFolder(filesOf(fixture), fixture), await testDevice());
  expect(isClose(found, golden.plain), `${found} for ${golden.plain}`).toBe(true);
}

/** Of the changes that load the same model, one of so many is computed all the same. */
const COMPUTED_ALL_THE_SAME = 10;

/**
 * Each change gives transformers' numbers, or a refusal by the field's name; never other numbers. Where a language model is
 * loaded alike, down to what building it looks up in the config, its numbers are those of the config as it is.
 */
export async function expectFuzzed(
  fixture: string,
  golden: FixtureGolden,
  run: RunGolden,
  { names, stricter }: FuzzRules,
  pictures: readonly PixelValues[] = [],
): Promise<void> {
  const device = await testDevice();
  const files = filesOf(fixture);
  const config = JSON.parse(new TextDecoder().decode(files.get("config.json")));
  const wrong: string[] = [];
  let computed = 0;
  let alike = 0;
  const plain = await run(memoryFolder(files, fixture), device);
  const isDual = DUAL_ENCODER_KINDS.some((kind) => kind === config.model_type);
  const reading = isDual ? undefined : await ConfigReading.of(memoryFolder(files, fixture), pictures, device);
  const cases = configCases(golden);
  for (const item of cases) {
    const what = JSON.stringify(item.set ?? { remove: item.remove });
    files.set("config.json", utf8(JSON.stringify(changed(config, item))));
    try {
      const folder = memoryFolder(files, fixture);
      const settled = (await reading?.equals(folder)) && ++alike % COMPUTED_ALL_THE_SAME !== 0;
      const found = settled ? plain : await run(folder, device);
      const expected = expectedOf(item, cases) ?? golden.plain;
      // transformers refuses what has another type (48.0 for 48, which is one number here), even where nobody reads it.
      if (isClose(found, expected)) computed++;
      else wrong.push(`${what}: ${found.slice(0, 2)} for ${item.outcome}`);
    } catch (error) {
      if (!(error instanceof XpatchError)) throw error;
      if (!namesField(error.message, item, names)) wrong.push(`${what}: ${error.message}`);
      if (item.outcome === "same" && !stricter.test(what))
        wrong.push(`${what}: refused though the same: ${error.message}`);
    }
  }
  expect(wrong).toEqual([]);
  expect(computed).toBeGreaterThan(Math.min(60, 0.4 * cases.length));
}
