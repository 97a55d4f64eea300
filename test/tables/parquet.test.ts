import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { FileError } from "../../src/errors.ts";
import { memorySource } from "../../src/model/checkpoint/source/sources.ts";
import { ParquetFile } from "../../src/tables/parquet-file.ts";
import { encodeParquet, type ParquetColumn } from "../../src/tables/parquet-writer.ts";

const FOLDER = join(import.meta.dirname, "../fixtures/tables");
const FILES = readdirSync(FOLDER).filter((name) => name.endsWith(".parquet"));
const expected = JSON.parse(readFileSync(join(FOLDER, "expected.json"), "utf8"));

const opened = (bytes: Uint8Array<ArrayBuffer>, name = "file.parquet") =>
  ParquetFile.open(memorySource(bytes, name));
const fixture = (name: string) => new Uint8Array(readFileSync(join(FOLDER, name)));

async function everything(file: ParquetFile): Promise<Record<string, unknown[]>> {
  const all: Record<string, unknown[]> = Object.fromEntries(file.fields.map(({ name }) => [name, []]));
  for (const group of file.groups.keys()) {
    const read = await file.read(group);
    for (const [i, { name }] of file.fields.entries()) all[name]!.push(...Array.from(read[i]!, plain));
  }
  return all;
}

/** As make-parquet-fixtures.py writes values that JSON lacks. */
function plain(value: unknown): unknown {
  if (value === undefined || value === null) return null;
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Uint8Array) return { hex: Buffer.from(value).toString("hex") };
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "number") {
    if (Number.isNaN(value)) return { number: "nan" };
    if (!Number.isFinite(value)) return { number: value > 0 ? "inf" : "-inf" };
    if (Object.is(value, -0)) return { number: "-0.0" };
  }
  if (typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, plain(field)]));
  }
  return value;
}

async function encoded(...args: Parameters<typeof encodeParquet>): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of encodeParquet(...args)) chunks.push(chunk);
  return new Uint8Array(Buffer.concat(chunks));
}

test.each(FILES)("%s of pyarrow: every type, nulls, both row groups", async (name) => {
  const file = await opened(fixture(name), name);
  expect(file.groups).toEqual([3, 2]);
  expect(file.rows).toBe(5);
  expect(file.metadata.get("greeting")).toBe("hello");
  expect(await everything(file)).toEqual(expected);
});

test("types are said in the words of Arrow", async () => {
  const file = await opened(fixture("snappy.parquet"));
  expect(Object.fromEntries(file.fields.map(({ name, type }) => [name, type]))).toEqual({
    text: "string",
    large: "string",
    category: "string",
    int: "int32",
    big: "int64",
    real: "double",
    single: "float",
    flag: "bool",
    names: "list<string>",
    image: "struct<bytes: binary, path: string>",
  });
});

const COLUMNS: readonly ParquetColumn[] = [
  { name: "text", type: "string", nullable: true },
  { name: "int", type: "int32", nullable: true },
  { name: "big", type: "int64" },
  { name: "real", type: "float64", nullable: true },
  { name: "flag", type: "boolean", nullable: true },
  { name: "vector", type: { list: "float32" }, encoding: "PLAIN", statistics: false },
  { name: "image", type: { struct: { bytes: "bytes", path: "string" } }, nullable: true },
];
const GROUPS = [
  [
    ["Łódź", null, ""],
    [1, null, -3],
    [1n, 2n ** 60n, -1n],
    [0.1, null, 3],
    [true, null, false],
    [[1, 2], [], [0.5]],
    [{ bytes: new Uint8Array([1, 2]), path: "a" }, null, { bytes: undefined, path: "b" }],
  ],
  [["x"], [7], [7n], [7.5], [true], [[9]], [null]],
];

test("what is written is read back, and the same values give the same bytes", async () => {
  const bytes = await encoded(COLUMNS, GROUPS, { metadata: { schema: "1" } });
  const file = await opened(bytes);
  expect(file.groups).toEqual([3, 1]);
  expect(file.metadata).toEqual(new Map([["schema", "1"]]));
  const read = await everything(file);
  for (const [i, { name }] of COLUMNS.entries()) {
    expect(read[name], name).toEqual(GROUPS.flatMap((group) => group[i]!.map(plain)));
  }
  expect(Buffer.compare(await encoded(COLUMNS, GROUPS, { metadata: { schema: "1" } }), bytes)).toBe(0);
  const plainly = await encoded(COLUMNS, GROUPS, { codec: "UNCOMPRESSED" });
  expect(await everything(await opened(plainly))).toEqual(read);
});

test("a file of no rows has its columns", async () => {
  const file = await opened(await encoded(COLUMNS, []));
  expect(file.groups).toEqual([]);
  expect(file.fields.map(({ name }) => name)).toEqual(COLUMNS.map(({ name }) => name));
});

test("columns are read by name, and a wrong one is answered with the names that there are", async () => {
  const file = await opened(fixture("zstd.parquet"), "data/zstd.parquet");
  expect(await file.read(1, ["int", "text"])).toEqual([
    [4, 2 ** 31 - 1],
    ["Greece", ""],
  ]);
  await expect(file.read(0, ["txt"])).rejects.toThrow(
    "data/zstd.parquet: expected a column txt, found text, large",
  );
});

test.each([
  [
    "nothing",
    new Uint8Array(0),
    "expected a Parquet file, which begins and ends with PAR1; found something else",
  ],
  ["text", new TextEncoder().encode("input,output\nGreece,Athens\n"), "found something else"],
  ["a file that is cut off", fixture("none.parquet").slice(0, -20), "found one that is cut off"],
  ["encrypted", new TextEncoder().encode("PARE....PARE"), "encrypted Parquet is not supported"],
])("%s is refused by what was expected", async (_, bytes, message) => {
  const error = await opened(bytes, "x.parquet").catch((error) => error);
  expect(error).toBeInstanceOf(FileError);
  expect(error.message).toContain("x.parquet: ");
  expect(error.message).toContain(message);
});
test("damaged files give typed errors that name the file, or the values", async () => {
  let refused = 0;
  let seed = 7;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  for (const name of FILES) {
    const whole = fixture(name);
    for (let trial = 0; trial < (name.startsWith("brotli") ? 20 : 80); trial++) {
      const bytes = whole.slice();
      for (let n = 1 + random(3); n > 0; n--) bytes[4 + random(bytes.length - 8)] = random(256);
      try {
        await everything(await opened(bytes, name));
      } catch (error) {
        expect(error).toBeInstanceOf(FileError);
        expect((error as Error).message).toMatch(new RegExp(`^${name}: `));
        refused++;
      }
    }
  }
  expect(refused).toBeGreaterThan(150);
});
