import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { CheckpointError } from "../../../../src/errors.ts";
import type { Checkpoint } from "../../../../src/model/checkpoint/checkpoint.ts";
import { commonName, EMBEDDING, HEAD } from "../../../../src/model/checkpoint/entries/module-names.ts";
import { readTensor, type TensorEntry } from "../../../../src/model/checkpoint/entries/tensor-entry.ts";
import { openCheckpoint } from "../../../../src/model/checkpoint/open-checkpoint.ts";
import { SafetensorsFile } from "../../../../src/model/checkpoint/safetensors/safetensors.ts";
import { writeSafetensors } from "../../../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { type Folder, memoryFolder } from "../../../../src/model/checkpoint/source/folder.ts";
import { memorySource } from "../../../../src/model/checkpoint/source/sources.ts";
import { decode, encode } from "../../../../src/tensor/dtype.ts";
import { collect, utf8 } from "../../../helpers/bytes.ts";
import { expectClose } from "../../../helpers/compare.ts";

/** One change of an adapter; scripts/make-adapters.py made the same before PEFT opened it. */
type Edit =
  | ["drop", key: string]
  | ["rename", key: string, to: string]
  | ["rows", key: string, count: number]
  | ["transpose", key: string]
  | ["dtype", key: string, stored: "I32" | "BF16" | "F64"]
  | ["poke", key: string, index: number, value: "nan" | "inf" | "-inf"]
  | ["fill", key: string, shape: number[], value: number]
  | ["set", field: string, value: unknown]
  | ["unset", field: string];

/** What PEFT 0.21 makes of it, by the probes that the script describes; no probes where it fails. */
interface Outcome {
  error?: string;
  /** Whether a tensor was missing (PEFT warns), or one was left out (it does not). */
  missing?: true;
  ignored?: true;
  /** Of an edited adapter those that differ from the unedited one's; null where the base's value is back. */
  probes?: Record<string, number | null>;
}

interface Matrix {
  shape: readonly number[];
  stored: string;
  values: Float64Array;
}

const FOLDER = "test/fixtures/adapters";
const { bases, intact, edited } = JSON.parse(readFileSync(`${FOLDER}/cases.json`, "utf8")) as {
  bases: Record<string, string>;
  intact: Record<string, { probes: Record<string, number> }>;
  edited: [name: string, edits: Edit[], outcome: Outcome][];
};

async function valuesOf(entry: TensorEntry): Promise<Float64Array> {
  const size = entry.shape.reduce((a, b) => a * b, 1);
  return Float64Array.from(decode(await readTensor(entry), entry.dtype, size));
}

async function readAdapter(name: string): Promise<Map<string, Matrix>> {
  const file = await SafetensorsFile.open(
    memorySource(Uint8Array.from(readFileSync(`${FOLDER}/${name}/adapter_model.safetensors`))),
  );
  const matrices = new Map<string, Matrix>();
  for (const e of file.entries) {
    matrices.set(e.name, { shape: e.shape, stored: e.stored, values: await valuesOf(e) });
  }
  return matrices;
}

function edit(
  tensors: Map<string, Matrix>,
  config: Record<string, unknown>,
  [kind, key, ...args]: Edit,
): void {
  const old = tensors.get(key)!;
  if (kind === "drop") tensors.delete(key);
  else if (kind === "rename") {
    tensors.delete(key);
    tensors.set(args[0] as string, old);
  } else if (kind === "rows") {
    const shape = [Math.min(args[0] as number, old.shape[0]!), ...old.shape.slice(1)];
    tensors.set(key, {
      ...old,
      shape,
      values: old.values.slice(
        0,
        shape.reduce((a, b) => a * b, 1),
      ),
    });
  } else if (kind === "transpose") {
    const [rows, columns] = old.shape as [number, number];
    const values = old.values.map((_, i) => old.values[(i % rows) * columns + Math.floor(i / rows)]!);
    tensors.set(key, { ...old, shape: [columns, rows], values });
  } else if (kind === "dtype") tensors.set(key, { ...old, stored: args[0] as string });
  else if (kind === "poke") {
    const values = old.values.slice();
    values[args[0] as number] = { nan: Number.NaN, inf: 1 / 0, "-inf": -1 / 0 }[args[1] as "nan"]!;
    tensors.set(key, { ...old, values });
  } else if (kind === "fill") {
    const shape = args[0] as number[];
    const values = new Float64Array(shape.reduce((a, b) => a * b, 1)).fill(args[1] as number);
    tensors.set(key, { shape, stored: "F32", values });
  } else if (kind === "set") config[key] = args[0];
  else delete config[key];
}

function bytesOf({ stored, values }: Matrix): Uint8Array {
  if (stored === "F64") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const dtypes = { F32: "f32", F16: "f16", BF16: "bf16", I32: "i32" } as const;
  const dtype = dtypes[stored as keyof typeof dtypes];
  const bytes = encode(values, dtype);
  return bytes.subarray(0, values.length * (dtype === "f32" || dtype === "i32" ? 4 : 2));
}

async function adapterWith(name: string, edits: readonly Edit[]): Promise<Folder> {
  const tensors = await readAdapter(name);
  const config = JSON.parse(readFileSync(`${FOLDER}/${name}/adapter_config.json`, "utf8"));
  for (const one of edits) edit(tensors, config, one);
  const written = [...tensors].map(([key, m]) => ({
    name: key,
    stored: m.stored,
    shape: m.shape,
    data: bytesOf(m),
  }));
  const files = new Map([
    ["adapter_config.json", utf8(JSON.stringify(config))],
    ["adapter_model.safetensors", await collect(writeSafetensors(written))],
  ]);
  return memoryFolder(files, "adapter");
}

/** u·(W + Σ s B A)v of a matrix, w·v of a vector. */
async function probe(checkpoint: Checkpoint, name: string, entry: TensorEntry): Promise<number> {
  const values = await valuesOf(entry);
  if (entry.shape.length === 1) return values.reduce((sum, x, j) => sum + x * Math.cos(j + 1), 0);
  const product = async (m: TensorEntry, x: ArrayLike<number>) => {
    const [rows, columns] = m.shape as [number, number];
    const w = await valuesOf(m);
    return Float64Array.from({ length: rows }, (_, i) => {
      let sum = 0;
      for (let j = 0; j < columns; j++) sum += w[i * columns + j]! * x[j]!;
      return sum;
    });
  };
  const v = Float64Array.from({ length: entry.shape[1]! }, (_, j) => Math.cos(j + 1));
  const y = await product(entry, v);
  for (const { a, b, scale } of checkpoint.updatesOf(name)) {
    const added = await product(b, await product(a, v));
    for (let i = 0; i < y.length; i++) y[i]! += scale * added[i]!;
  }
  return y.reduce((sum, x, i) => sum + Math.sin(i + 1) * x, 0);
}

/** Probes by common name; a model without an output matrix uses its embedding. */
async function probesOf(checkpoint: Checkpoint): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const name of checkpoint.names) {
    const entry = checkpoint.entry(name);
    if (entry.shape.length > 2 || /position_ids|inv_freq/.test(name)) continue;
    found.set(commonName(name), await probe(checkpoint, name, entry));
  }
  if (!found.has(HEAD)) found.set(HEAD, found.get(EMBEDDING)!);
  return found;
}

const before = new Map<string, Promise<Map<string, number>>>();

function baseProbes(base: string): Promise<Map<string, number>> {
  const known = before.get(base);
  if (known) return known;
  const made = openCheckpoint(`test/fixtures/${base}/model`).then(async (checkpoint) => {
    await using opened = checkpoint;
    return await probesOf(opened);
  });
  before.set(base, made);
  return made;
}

/** Expects what PEFT has, and the base's where PEFT changes nothing. */
async function expectProbes(
  actual: Map<string, number>,
  base: string,
  probes: Record<string, number | null>,
  label: string,
): Promise<void> {
  const expected = new Map(await baseProbes(base));
  for (const [name, value] of Object.entries(probes)) {
    if (value !== null) expected.set(commonName(name), value);
  }
  expect([...actual.keys()].sort(), label).toEqual([...expected.keys()].sort());
  for (const [name, value] of expected) {
    expectClose([actual.get(name)!], [value], { atol: 1e-6, rtol: 1e-6, label: `${label}: ${name}` });
  }
}

/** The probes with an edited adapter, or the refusal. */
async function attempt(name: string, edits: readonly Edit[]): Promise<Map<string, number> | CheckpointError> {
  try {
    const adapters = [await adapterWith(name, edits)];
    await using checkpoint = await openCheckpoint(`test/fixtures/${bases[name]!}/model`, { adapters });
    return await probesOf(checkpoint);
  } catch (error) {
    if (error instanceof CheckpointError) return error;
    throw error;
  }
}

test.each(Object.keys(intact))("%s is what PEFT makes of it", async (name) => {
  const found = await attempt(name, []);
  if (found instanceof Error) throw found;
  await expectProbes(found, bases[name]!, intact[name]!.probes, name);
});

/** Whether an edit makes something of it that PEFT opens without a word, and that is refused here by name. */
function isUnsupported([kind, key, value]: Edit): boolean {
  if (kind === "dtype") return value === "I32";
  if (kind === "drop") return key.endsWith(".bias");
  if (kind === "rename") return !(value as string).startsWith("base_model.model.");
  if (kind !== "set") return false;
  if (key === "layer_replication") return true;
  const fields: Record<string, unknown[]> = {
    init_lora_weights: ["pissa", "olora"],
    use_qalora: [true],
    use_dora: [true],
    twist: [2],
    bias: ["all", "lora_only"], // without the tensors
  };
  return fields[key]?.includes(value) ?? false;
}

test("edited adapters give what PEFT gives, or are refused", async () => {
  let right = 0;
  for (const [name, edits, { error, missing, ignored, probes }] of edited) {
    const label = `${name} ${JSON.stringify(edits)}`;
    const found = await attempt(name, edits);
    if (found instanceof Error) {
      // A refusal where PEFT has nothing to say must be meant.
      if (!error && !missing && !ignored && !edits.some(isUnsupported))
        expect.fail(`${label}: ${found.message}`);
      continue;
    }
    expect(error, label).toBeUndefined();
    const expected = { ...intact[name]!.probes, ...probes! };
    await expectProbes(found, bases[name]!, expected, label);
    right++;
  }
  expect(right / edited.length).toBeGreaterThan(0.3); // the others are damaged
}, 120_000);
