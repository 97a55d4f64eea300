import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { type Cell, defineCell } from "../../../experiments/framework/cell.ts";
import { FolderLock } from "../../../experiments/framework/folder-lock.ts";
import { Lab } from "../../../experiments/framework/lab.ts";
import type { LabOptions, Setting } from "../../../experiments/framework/setting.ts";
import { Store } from "../../../experiments/framework/store.ts";
import { Claims } from "../../../experiments/grid/claims.ts";
import { CellBusy, CellFailed, GridLab } from "../../../experiments/grid/grid-lab.ts";
import { missingOf } from "../../../experiments/grid/missing.ts";
import { PackWriter } from "../../../experiments/grid/pack-writer.ts";
import { Presence, Watch } from "../../../experiments/grid/presence.ts";
import { ReplayLab } from "../../../experiments/grid/replay.ts";
import { RunStore } from "../../../experiments/grid/run-store.ts";
import { PromptError, SiteError } from "../../../src/errors.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-grid-lab-"));
afterAll(() => rmSync(root, { recursive: true }));

const SETTING = { adapter: "none", options: {}, tasks: [] } as unknown as Setting;
const PARTS = {
  model: undefined as never,
  llm: undefined,
  tasks: [],
  options: {} as LabOptions,
  setting: SETTING,
};

/** How often each cell has begun to be computed, and what goes wrong in which. */
const begun: Record<string, number> = {};
const wrong = new Map<string, Error>();

function begin(name: string): void {
  begun[name] = (begun[name] ?? 0) + 1;
  const error = wrong.get(name);
  if (error) throw error;
}

const leaf = defineCell("leaf", async (lab, { of }: { of: string }) => {
  begin(`leaf ${of}`);
  lab.spend({ rowLayers: 1, plainRowLayers: 2, plainPasses: 1 });
  await lab.store.keepFile(`files/${of}.bin`, new TextEncoder().encode(of));
  return { file: `files/${of}.bin` };
});

/** Asks for leaves as vectors are asked for, by `run`. */
const mean = defineCell("mean", async (lab, { of }: { of: string }) => {
  begin(`mean ${of}`);
  lab.spend({ rowLayers: 10, plainRowLayers: 20, plainPasses: 1 });
  const files: string[] = [];
  for (const name of of) files.push((await lab.run(leaf({ of: name }))).file);
  return files.map((file) => new TextDecoder().decode(lab.store.file(file))).join("+");
});

/** Goes by what others came to, as the choice of a layer does, by `result`. */
const choice = defineCell("choice", (lab, { of }: { of: string }) => {
  begin(`choice ${of}`);
  lab.spend({ rowLayers: 100, plainRowLayers: 200, plainPasses: 1 });
  return Promise.resolve([...of].map((name) => lab.result(mean({ of: name }))).join(","));
});

async function worker(name: string) {
  const kept = new RunStore(join(root, name), "0123456789abcdef");
  const presence = new Presence(join(root, name, "workers"));
  const pack = new PackWriter(kept.packFolder, presence.id, await kept.begin(SETTING));
  kept.refresh();
  const claims = new Claims(kept.claimFolder, presence, new Watch(join(root, name, "workers"), 100));
  return { lab: new GridLab({ ...PARTS, folder: kept.folder, kept, pack, claims }), kept, pack, claims };
}

function replayed(name: string) {
  const kept = new RunStore(join(root, name), "0123456789abcdef");
  kept.refresh();
  return { lab: new ReplayLab({ ...PARTS, folder: join(root, name) }, kept), kept };
}

test("what a cell asks for is computed first, whichever way it asks; all comes to what a single process keeps", async () => {
  const { lab, kept, pack, claims } = await worker("order");
  expect(await lab.run(choice({ of: "ab" }))).toBe("a,b");
  // Once for each that was missing, and once with all.
  expect(begun["choice ab"]).toBe(3);
  expect([begun["mean a"], begun["leaf a"]]).toEqual([1, 1]);
  expect(await lab.run(mean({ of: "ab" }))).toBe("a+b");
  pack.close();
  expect(readdirSync(kept.claimFolder)).toEqual([]);
  expect(claims).toBeDefined();

  const cells: Cell<unknown>[] = [
    mean({ of: "a" }),
    mean({ of: "b" }),
    choice({ of: "ab" }),
    mean({ of: "ab" }),
  ];
  const replay = replayed("order");
  for (const cell of cells) await replay.lab.run(cell);
  using lock = FolderLock.take(join(root, "single"));
  const single = new Lab({ ...PARTS, folder: lock.folder, store: await Store.open(lock, SETTING) });
  for (const cell of cells) await single.run(cell);
  const untimed = single.store.records.map(({ seconds: _, ...rest }) => rest);
  expect(replay.lab.store.records).toEqual(untimed);
  expect(JSON.stringify(replay.lab.store.records)).toBe(JSON.stringify(untimed));
  expect([...replay.lab.files]).toEqual(["files/a.bin", "files/b.bin"]);
});

test("a cell that fails is written down, and those that ask for it; next time it is tried again", async () => {
  const { lab, kept, pack } = await worker("failing");
  wrong.set("leaf x", new TypeError("boom"));
  const failed = 'the cell "leaf of=x" failed: TypeError: boom';
  await expect(lab.run(mean({ of: "x" }))).rejects.toThrow(new CellFailed(failed));
  await expect(lab.run(mean({ of: "yx" }))).rejects.toThrow(new CellFailed(failed));
  expect([begun["leaf x"], begun["leaf y"]]).toEqual([1, 1]);
  pack.flush();
  expect(missingOf(kept, [mean({ of: "yx" }).key])).toEqual([{ key: "mean of=yx", error: failed }]);
  expect(kept.failure("leaf of=x")).toBe("TypeError: boom");
  expect(readdirSync(kept.claimFolder)).toEqual([]);
  wrong.clear();
  lab.forgetFailures();
  expect(await lab.run(mean({ of: "yx" }))).toBe("y+x");
  pack.close();
  expect(missingOf(kept, [mean({ of: "yx" }).key])).toEqual([]);
});

test("what the model refuses is kept as such, and thrown again by whoever merges", async () => {
  const { lab, kept, pack } = await worker("refusing");
  wrong.set("leaf r", new SiteError("no such site"));
  wrong.set("mean s", new PromptError("no such prompt"));
  await expect(lab.run(mean({ of: "r" }))).rejects.toThrow(new SiteError("no such site"));
  await expect(lab.run(choice({ of: "s" }))).rejects.toThrow(new PromptError("no such prompt"));
  wrong.clear();
  pack.close();
  const later = await worker("refusing");
  await expect(later.lab.run(mean({ of: "r" }))).rejects.toThrow(SiteError);
  expect(begun["leaf r"]).toBe(1);
  expect([kept.state("leaf of=r"), kept.state("mean of=r")]).toEqual(["refused", "refused"]);
  expect(missingOf(kept, ["mean of=r", "choice of=s"])).toEqual([]);
  const { lab: replay } = replayed("refusing");
  await expect(replay.run(mean({ of: "r" }))).rejects.toThrow(new SiteError("no such site"));
  await expect(replay.run(choice({ of: "s" }))).rejects.toThrow(new PromptError("no such prompt"));
  expect(replay.store.records).toEqual([]);
});

test("a cell that another worker has, or that asks for one, is put off; claims are given back", async () => {
  const [a, b] = [await worker("busy"), await worker("busy")];
  let go = () => {};
  const slow = defineCell("slow", async () => {
    await new Promise<void>((done) => (go = done));
    return 1;
  });
  const asking = defineCell("asking", (lab) => lab.run(slow({})));
  const computing = a.lab.run(slow({}));
  await expect(b.lab.run(slow({}))).rejects.toThrow(CellBusy);
  await expect(b.lab.run(asking({}))).rejects.toThrow(CellBusy);
  expect(readdirSync(b.kept.claimFolder)).toHaveLength(1);
  go();
  await computing;
  a.pack.flush();
  b.kept.refresh();
  expect(await b.lab.run(asking({}))).toBe(1);
  b.pack.close();
  expect(readdirSync(b.kept.claimFolder)).toEqual([]);
});
