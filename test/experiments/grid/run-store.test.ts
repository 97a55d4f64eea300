import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { NO_COST } from "../../../experiments/framework/cost.ts";
import type { Setting } from "../../../experiments/framework/setting.ts";
import { idOf } from "../../../experiments/grid/cell-names.ts";
import { missingOf } from "../../../experiments/grid/missing.ts";
import { PackWriter } from "../../../experiments/grid/pack-writer.ts";
import { type KeptCell, RunStore } from "../../../experiments/grid/run-store.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-packs-"));
afterAll(() => rmSync(root, { recursive: true }));

const RUN = "0123456789abcdef";
const SETTING = { adapter: "here", options: { seeds: 1 } } as Setting;

const cell = (key: string, result: unknown = key, more: Partial<KeptCell> = {}): KeptCell => ({
  key,
  kind: "k",
  params: {},
  result,
  cost: NO_COST,
  needs: [],
  files: [],
  ...more,
});

/** A run's store, and writers into it. */
async function begun(name: string) {
  const store = new RunStore(join(root, name), RUN);
  const header = await store.begin(SETTING);
  const writer = (worker: string) => {
    const pack = new PackWriter(store.packFolder, worker, header);
    const add = (one: KeptCell) => pack.add("cell", idOf(RUN, one.key), Buffer.from(JSON.stringify(one)), 1);
    return { pack, add, path: join(store.packFolder, worker) };
  };
  return { store, writer };
}

/** As another process sees it. */
function seen(name: string): RunStore {
  const store = new RunStore(join(root, name), RUN);
  store.refresh();
  return store;
}

test("what several workers keep is there for all, in a few files a worker", async () => {
  const { store, writer } = await begun("several");
  const [a, b] = [writer("a"), writer("b")];
  for (let i = 0; i < 50; i++) (i % 2 ? a : b).add(cell(`k n=${i}`));
  a.pack.add("file", idOf(RUN, "vectors/v.bin"), Uint8Array.of(1, 2, 3), 0);
  a.pack.close();
  b.pack.close();
  expect(store.state("k n=1")).toBe("missing");
  store.refresh();
  for (let i = 0; i < 50; i++) expect(store.cell(`k n=${i}`)).toEqual(cell(`k n=${i}`));
  expect([...store.file("vectors/v.bin")]).toEqual([1, 2, 3]);
  expect(store.secondsOf("k n=3")).toBe(1);
  expect(readdirSync(store.packFolder).sort()).toEqual(["a.data", "a.index", "b.data", "b.index"]);
  expect(() => store.file("vectors/w.bin")).toThrow(/the file vectors\/w\.bin of a finished cell is missing/);
});

test("an entry counts when its line is whole, wherever a kill came", async () => {
  const { writer } = await begun("torn");
  const { pack, add, path } = writer("a");
  add(cell("k n=0"));
  add(cell("k n=1"));
  pack.close();
  const index = readFileSync(`${path}.index`);
  const data = readFileSync(`${path}.data`);
  for (let end = 0; end <= index.length; end++) {
    writeFileSync(`${path}.index`, index.subarray(0, end));
    const whole = index.subarray(0, end).toString().split("\n").length - 2;
    const store = seen("torn");
    const states = [0, 1].map((i) => store.state(`k n=${i}`));
    expect(states).toEqual([0, 1].map((i) => (i < whole ? "finished" : "missing")));
    expect(store.damages).toEqual([]);
  }
  // Bytes that no line speaks of are nobody's.
  writeFileSync(`${path}.data`, Buffer.concat([data, Buffer.from("half a ce")]));
  expect(seen("torn").cell("k n=1")).toEqual(cell("k n=1"));
});

test("a damaged cell is refused with what to do, unless it is whole elsewhere", async () => {
  const { writer } = await begun("damaged");
  const { pack, add, path } = writer("a");
  add(cell("k n=0"));
  add(cell("k n=1"));
  pack.close();
  const data = readFileSync(`${path}.data`);
  const flipped = Buffer.from(data);
  flipped[flipped.length - 5]! ^= 1;
  writeFileSync(`${path}.data`, flipped);
  const store = seen("damaged");
  expect(store.cell("k n=0")).toEqual(cell("k n=0"));
  const message =
    /^the cell "k n=1" is damaged: .*a\.data: byte \d+: the checksum differs; delete .*a\.data and .*a\.index, and "xpatch grid run"/;
  expect(() => missingOf(store, ["k n=0", "k n=1"])).toThrow(message);
  truncateSync(`${path}.data`, data.length - 3);
  expect(() => seen("damaged").cell("k n=1")).toThrow(/expected \d+ bytes, found \d+/);
  rmSync(`${path}.data`);
  expect(() => seen("damaged").cell("k n=1")).toThrow(/no such file/);
  const other = writer("b");
  other.add(cell("k n=1"));
  other.pack.close();
  expect(seen("damaged").cell("k n=1")).toEqual(cell("k n=1"));
});

test("a damaged line is told, and its cell is missing", async () => {
  const { writer } = await begun("line");
  const { pack, add, path } = writer("a");
  add(cell("k n=0"));
  add(cell("k n=1"));
  pack.close();
  const lines = readFileSync(`${path}.index`, "utf8").split("\n");
  lines[1] = lines[1]!.replace("cell", "sell");
  writeFileSync(`${path}.index`, lines.join("\n"));
  const store = seen("line");
  expect([store.state("k n=0"), store.state("k n=1")]).toEqual(["missing", "finished"]);
  expect(store.damages).toEqual([{ where: `${path}.index: line 2`, what: "it is damaged" }]);
});

test("the pack of another grid is none of this one's", async () => {
  const { writer } = await begun("foreign");
  const own = writer("a");
  own.add(cell("k n=0"));
  own.pack.close();
  const path = join(root, "foreign", "packs", "b");
  copyFileSync(`${own.path}.data`, `${path}.data`);
  const text = readFileSync(`${own.path}.index`, "utf8").replace(RUN, "fedcba9876543210");
  writeFileSync(`${path}.index`, text);
  rmSync(`${own.path}.index`);
  const store = seen("foreign");
  expect(store.state("k n=0")).toBe("missing");
  expect(store.damages[0]!.what).toMatch(
    /^expected "xpatch-grid 1 0123.*it is of another grid, version or machine$/,
  );
  appendFileSync(`${path}.index`, text.split("\n")[1]!.concat("\n"));
  store.refresh();
  expect(store.state("k n=0")).toBe("missing");
});

test("the same cell twice is one, different contents are an error", async () => {
  const { writer } = await begun("twice");
  const [a, b] = [writer("a"), writer("b")];
  for (const { add } of [a, b]) add(cell("k n=0"));
  a.add(cell("k n=1", 0.25));
  b.add(cell("k n=1", 0.5));
  a.pack.close();
  b.pack.close();
  const store = seen("twice");
  expect(missingOf(store, ["k n=0"])).toEqual([]);
  expect(() => missingOf(store, ["k n=1"])).toThrow(
    /^the cell "k n=1" came out differently in .*a\.data and .*b\.data: numbers of this setting are not the same each time$/,
  );
});

test("what cells asked for is looked for as well, and failures go when somebody succeeds", async () => {
  const { store, writer } = await begun("needs");
  const { pack, add } = writer("a");
  add(cell("k n=0", 1, { needs: ["k n=1"], files: [] }));
  pack.add(
    "failed",
    idOf(RUN, "k n=1"),
    Buffer.from(JSON.stringify({ key: "k n=1", error: "Error: no" })),
    0,
  );
  pack.flush();
  store.refresh();
  expect(missingOf(store, ["k n=0", "k n=2"])).toEqual([
    { key: "k n=2" },
    { key: "k n=1", error: "Error: no" },
  ]);
  expect(store.state("k n=1")).toBe("failed");
  add(cell("k n=1"));
  add(cell("k n=2"));
  pack.close();
  store.refresh();
  expect(missingOf(store, ["k n=0", "k n=2"])).toEqual([]);
  expect([store.state("k n=1"), store.failure("k n=1")]).toEqual(["finished", undefined]);
});

test("a worker with another setting is refused; of two that begin at once both see the same", async () => {
  const stores = [0, 1, 2].map(() => new RunStore(join(root, "setting"), RUN));
  const headers = await Promise.all(stores.map((store) => store.begin(SETTING)));
  expect(new Set(headers).size).toBe(1);
  expect(readdirSync(join(root, "setting"))).toEqual(["setting.json"]);
  await expect(stores[0]!.begin({ ...SETTING, adapter: "there" })).rejects.toThrow(
    /was begun by a worker with another setting; .*: adapter was "here", now "there"$/,
  );
});

test("after a write that failed a worker writes no more: where the next entry would be is not known", async () => {
  const { store, writer } = await begun("full");
  mkdirSync(store.packFolder, { recursive: true });
  mkdirSync(join(store.packFolder, "a.data"));
  const { pack, add } = writer("a");
  const refused = /^cannot write .*a\.data: /;
  expect(() => add(cell("k n=0"))).toThrow(refused);
  rmSync(join(store.packFolder, "a.data"), { recursive: true });
  expect(() => pack.flush()).toThrow(refused);
  expect(() => pack.close()).not.toThrow();
  store.refresh();
  expect(store.state("k n=0")).toBe("missing");
});
