import { readdirSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { CheckpointError } from "../../../src/errors.ts";
import { readTensor } from "../../../src/model/checkpoint/entries/tensor-entry.ts";
import { openCheckpoint } from "../../../src/model/checkpoint/open-checkpoint.ts";
import { writeSafetensors } from "../../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { type Folder, memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import type { DownloadProgress } from "../../../src/model/checkpoint/source/hub-folder.ts";
import { collect, utf8, watchedSource } from "../../helpers/bytes.ts";
import { buildGguf, tinyLlama } from "../../helpers/gguf-builder.ts";

const FIXTURE = fileURLToPath(new URL("../../fixtures/llama-gqa-tied/model", import.meta.url));

function shard(...names: string[]): Promise<Uint8Array<ArrayBuffer>> {
  const tensors = names.map((name) => ({ name, stored: "U8", shape: [1], data: Uint8Array.of(name.length) }));
  return collect(writeSafetensors(tensors));
}

const json = (value: unknown) => utf8(JSON.stringify(value));
const SHARD_WITHOUT_CCC = await shard("cc");
const INDEX = "model.safetensors.index.json";

/** Two shards, `a` and `bb` in the first, `ccc` in the second. */
async function sharded(): Promise<Map<string, Uint8Array>> {
  return new Map([
    ["config.json", json({ model_type: "llama" })],
    ["one.safetensors", await shard("a", "bb")],
    ["two.safetensors", await shard("ccc")],
    [
      INDEX,
      json({
        metadata: { total_size: 3 },
        weight_map: { ccc: "two.safetensors", a: "one.safetensors", bb: "one.safetensors" },
      }),
    ],
  ]);
}

/** Opens the two-shard checkpoint with some of its files replaced, or taken away where the value is undefined. */
async function openChanged(changes: Record<string, Uint8Array | undefined>) {
  const files = await sharded();
  for (const [name, bytes] of Object.entries(changes)) {
    if (bytes) files.set(name, bytes);
    else files.delete(name);
  }
  return openCheckpoint(memoryFolder(files, "m"));
}

async function expectRefusal(action: Promise<unknown>, message: RegExp | string): Promise<void> {
  await expect(action).rejects.toThrow(CheckpointError);
  await expect(action).rejects.toThrow(message);
}

describe("a folder", () => {
  let root: string;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), "xpatch-checkpoint-"));
  });
  afterAll(() => rm(root, { recursive: true }));

  test("on disk, as Python saved it", async () => {
    const checkpoint = await openCheckpoint(FIXTURE);
    expect(checkpoint.config).toMatchObject({ model_type: "llama", hidden_size: 48 });
    expect(checkpoint.names).toContain("model.embed_tokens.weight");
    expect(checkpoint.entry("model.embed_tokens.weight").shape).toEqual([448, 48]);
    expect(checkpoint.storedBytes).toBe(
      checkpoint.entries.reduce((sum, entry) => sum + entry.storedBytes, 0),
    );
    expect(await checkpoint.json("tokenizer_config.json")).toMatchObject({ eos_token: "<|endoftext|>" });
    expect(await checkpoint.text("chat_template.jinja")).toBe(undefined);
    await checkpoint.close();
    await expect(readTensor(checkpoint.entry("model.norm.weight"))).rejects.toThrow();
  });

  test("in shards", async () => {
    const checkpoint = await openChanged({});
    expect(checkpoint.names).toEqual(["a", "bb", "ccc"]);
    expect(checkpoint.files.map((file) => file.name)).toEqual(["m/one.safetensors", "m/two.safetensors"]);
    for (const name of ["a", "bb", "ccc"]) {
      expect(await readTensor(checkpoint.entry(name))).toEqual(
        new Uint8Array(Uint32Array.of(name.length).buffer),
      );
    }
    expect(checkpoint.storedBytes).toBe(3);
  });

  test("whose files are links, as in the hub's cache", async () => {
    await mkdir(join(root, "linked"));
    for (const name of ["config.json", "model.safetensors"]) {
      await symlink(join(FIXTURE, name), join(root, "linked", name));
    }
    const checkpoint = await openCheckpoint(join(root, "linked"));
    expect(checkpoint.has("model.norm.weight")).toBe(true);
    await checkpoint.close();
  });

  test("of Blobs, as a browser has them", async () => {
    const files = [...(await sharded())].map(
      ([name, bytes]) => [name, new Blob([Uint8Array.from(bytes)])] as const,
    );
    const checkpoint = await openCheckpoint(memoryFolder(new Map(files)));
    expect((await readTensor(checkpoint.entry("bb")))[0]).toBe(2);
  });

  test("missing tensors are listed, each with the nearest name", async () => {
    const checkpoint = await openChanged({});
    expect(() => checkpoint.require(["a", "bbb", "cc"])).toThrow(
      "m has no tensor bbb (the nearest is bb), cc (the nearest is ccc)",
    );
    expect(() => checkpoint.entry("a.weight")).toThrow(CheckpointError);
    expect(() => checkpoint.entry("toString")).toThrow(CheckpointError);
    expect(() => checkpoint.require(Array.from({ length: 20 }, (_, i) => `t${i}`))).toThrow(/and 12 more$/);
    checkpoint.require(["a", "ccc"]);
  });

  const map = (weight_map: unknown) => ({ [INDEX]: json({ weight_map }) });

  test.each<[problem: string, changes: Record<string, Uint8Array | undefined>, message: RegExp]>([
    ["no config", { "config.json": undefined }, /^m: there is no config\.json/],
    ["a config that is not JSON", { "config.json": utf8("{") }, /m\/config\.json: not valid JSON/],
    ["a config that is not an object", { "config.json": json([]) }, /m\/config\.json: expected an object/],
    ["a config that is not text", { "config.json": Uint8Array.of(0xff) }, /m\/config\.json: not UTF-8/],
    ["no weights", { [INDEX]: undefined }, /neither model\.safetensors nor model\.safetensors\.index\.json/],
    [
      "a pickle",
      { [INDEX]: undefined, "pytorch_model.bin": utf8("PK") },
      /neither .*; pytorch_model\.bin is a pickle.* save_pretrained\(folder\)/,
    ],
    [
      "one shard without an index",
      { [INDEX]: undefined, "model-00001-of-00001.safetensors": utf8("") },
      /; model-00001-of-00001\.safetensors is there.* called model\.safetensors it is read/,
    ],
    ["no weight_map", { [INDEX]: json({ metadata: {} }) }, /there is no weight_map/],
    ["a weight_map that is a list", map(["one.safetensors"]), /expected \{, found "\["/],
    ["a shard that is a number", map({ a: 1 }), /expected ", found "1"/],
    [
      "a tensor named twice",
      { [INDEX]: utf8('{"weight_map":{"a":"one.safetensors","a":"two.safetensors"}}') },
      /duplicate key "a"/,
    ],
    [
      "an index nested without end",
      { [INDEX]: utf8(`{"metadata":${"[".repeat(1e6)}`) },
      /nested deeper than 64/,
    ],
    ["a missing shard", { "two.safetensors": undefined }, /names two\.safetensors, which is missing/],
    [
      "a shard without its tensor",
      { "two.safetensors": SHARD_WITHOUT_CCC },
      /two\.safetensors has no tensor ccc; the nearest is cc/,
    ],
    [
      "a damaged shard",
      { "two.safetensors": utf8("{}") },
      /m\/two\.safetensors: not a valid safetensors file/,
    ],
    ...[
      "../one.safetensors",
      "x/../../one.safetensors",
      "/etc/one.safetensors",
      "..\\one.safetensors",
      "C:one.safetensors",
      "file:///one",
      "./one.safetensors",
      "x//one.safetensors",
      "",
      ".",
      "one.safetensors\0",
    ].map(
      (path) =>
        [`shard name ${JSON.stringify(path)}`, map({ a: path }), /is not a path inside the folder/] as [
          string,
          Record<string, Uint8Array>,
          RegExp,
        ],
    ),
  ])("is refused: %s", async (_, changes, message) => {
    await expectRefusal(openChanged(changes), message);
  });

  test("other files cannot be asked for outside of it", async () => {
    const checkpoint = await openChanged({ "sub/x.json": json(1) });
    expect(await checkpoint.json("sub/x.json")).toBe(1);
    await expectRefusal(checkpoint.json("../x.json"), /not a path inside/);
  });

  test("files are closed with it, and when it cannot be opened", async () => {
    for (const damaged of [false, true]) {
      const files = await sharded();
      if (damaged) files.set("two.safetensors", utf8("nonsense"));
      const opened: ReturnType<typeof watchedSource>[] = [];
      const folder: Folder = {
        name: "watched",
        async open(path) {
          const bytes = files.get(path);
          if (!bytes) return undefined;
          opened.push(watchedSource(bytes));
          return opened.at(-1);
        },
      };
      if (damaged) await expectRefusal(openCheckpoint(folder), /not a valid safetensors file/);
      else await (await openCheckpoint(folder)).close();
      // config.json, the index and both shards
      expect(opened.map((source) => source.closed)).toEqual([true, true, true, true]);
    }
  });

  test("a ref that is nothing at all", async () => {
    await expectRefusal(
      openCheckpoint(join(root, "nowhere")),
      /not a folder with a config\.json .*, nor a URL, nor a hub id/,
    );
    await expectRefusal(openCheckpoint(join(root, "nowhere.gguf")), /nowhere\.gguf: no such file/);
    await expectRefusal(openCheckpoint("./no/where"), /nor a hub id/);
  });

  test("a model and an adapter in one, of which transformers would load the adapter's base", async () => {
    const path = join(root, "both");
    await mkdir(path);
    for (const file of ["config.json", "model.safetensors"])
      await symlink(join(FIXTURE, file), join(path, file));
    await writeFile(join(path, "adapter_config.json"), '{"peft_type": "LORA"}');
    await expectRefusal(openCheckpoint(path), /found both a config\.json and an adapter_config\.json/);
  });

  test("a path with a typing error", async () => {
    const offline = { fetch: () => Promise.reject(new Error("offline")) };
    const none =
      /test\/fixturs: there is no such folder \(the nearest is test\/fixtures\), and as a hub id: .*offline/;
    await expectRefusal(openCheckpoint("test/fixturs", offline), none);
    const near = /there is no such folder \(the nearest is \.\/test\/fixtures\/llama\)/;
    await expectRefusal(openCheckpoint("./tset/fixtures/lama"), near);
    await expectRefusal(
      openCheckpoint("test/fixtures/llama"),
      /the folder is there, but none of these files is in it/,
    );
  });

  test("by a file: URL, with a slash behind it, with any name", async () => {
    const name = "mein Modell ü 日本 #1?%20.gguf";
    await mkdir(join(root, name));
    for (const file of ["config.json", "model.safetensors"]) {
      await symlink(join(FIXTURE, file), join(root, name, file));
    }
    const path = join(root, name);
    for (const ref of [path, `${path}/`, pathToFileURL(path).href, `${pathToFileURL(path).href}/`]) {
      await using checkpoint = await openCheckpoint(ref);
      expect(checkpoint.has("model.norm.weight")).toBe(true);
    }
    await using lone = await openCheckpoint(pathToFileURL(join(path, "model.safetensors")).href);
    expect(lone.has("model.norm.weight")).toBe(true);
    await mkdir(join(root, "empty.gguf"));
    await expectRefusal(openCheckpoint(join(root, "empty.gguf")), /expected a file, found a folder/);
  });

  test("lone files, for inspection", async () => {
    const lone = await openCheckpoint(join(FIXTURE, "model.safetensors"));
    expect(lone.config).toBe(undefined);
    expect(lone.files[0]!.metadata.get("format")).toBe("pt");
    expect(lone.entry("model.norm.weight").stored).toBe("F32");
    expect(await lone.json("config.json")).toBe(undefined);
    await lone.close();

    const path = join(root, "tiny.GGUF");
    const { metadata, tensors } = tinyLlama();
    await writeFile(path, buildGguf(metadata, tensors).bytes);
    const gguf = await openCheckpoint(path);
    expect(gguf.files[0]!.metadata.get("general.name")).toBe("tiny");
    expect(gguf.entry("blk.0.attn_q.weight")).toMatchObject({ stored: "Q8_0", shape: [32, 32] });
    await gguf.close();

    await writeFile(join(root, "bad.safetensors"), "nonsense");
    await expectRefusal(openCheckpoint(join(root, "bad.safetensors")), /bad\.safetensors: not a valid/);
  });
});

describe("a hub id", () => {
  const COMMIT = "0123456789abcdef0123456789abcdef01234567";

  /** The four requests that a download makes, answered from memory. */
  function mockHub(files: ReadonlyMap<string, Uint8Array>, requests: string[]): typeof fetch {
    return async (input, init) => {
      const url = new URL(String(input));
      requests.push(`${init?.method ?? "GET"} ${url.pathname}`);
      expect(new Headers(init?.headers).get("authorization")).toBe("Bearer hf_test");
      if (url.pathname === "/api/models/org/name/revision/v1") {
        const siblings = [...files.keys()].map((rfilename) => ({ rfilename }));
        return Response.json({ _id: "1", id: "org/name", sha: COMMIT, siblings, lastModified: "2024-01-01" });
      }
      if (url.pathname === `/api/models/org/name/paths-info/${COMMIT}`) {
        const [path] = JSON.parse(String(init!.body)).paths;
        return Response.json([{ path, type: "file", oid: `oid-${path}`, size: files.get(path)!.length }]);
      }
      const file = files.get(url.pathname.split(`/org/name/resolve/${COMMIT}/`)[1] ?? "");
      if (!file) return Response.json({ error: "Repository not found" }, { status: 404 });
      const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(new Headers(init?.headers).get("range") ?? "") ?? [];
      if (from === undefined) return new Response(Uint8Array.from(file), { headers: { etag: "e" } });
      const last = Math.min(Number(to), file.length - 1);
      const body = Uint8Array.from(file.subarray(Number(from), last + 1));
      const headers = { "content-range": `bytes ${from}-${last}/${file.length}`, etag: "e" };
      return new Response(body, { status: 206, headers });
    };
  }

  /** With a cache of its own. */
  async function inEmptyCache(work: (cache: string) => Promise<void>): Promise<void> {
    const cache = await mkdtemp(join(tmpdir(), "xpatch-hub-"));
    vi.stubEnv("HF_HUB_CACHE", cache);
    try {
      await work(cache);
    } finally {
      vi.unstubAllEnvs();
      await rm(cache, { recursive: true });
    }
  }

  test("is downloaded once to the standard cache, all files of one commit", async () => {
    await inEmptyCache(async (cache) => {
      const requests: string[] = [];
      const options = { revision: "v1", accessToken: "hf_test", fetch: mockHub(await sharded(), requests) };
      for (const run of [1, 2]) {
        requests.length = 0;
        const checkpoint = await openCheckpoint("org/name", options);
        expect(checkpoint.names).toEqual(["a", "bb", "ccc"]);
        expect((await readTensor(checkpoint.entry("ccc")))[0]).toBe(3);
        expect((await readTensor(checkpoint.entry("a")))[0]).toBe(1);
        expect(await checkpoint.text("absent.txt")).toBe(undefined);
        await checkpoint.close();
        if (run === 2) expect(requests).toEqual(["GET /api/models/org/name/revision/v1"]);
      }
      const snapshot = join(cache, "models--org--name", "snapshots", COMMIT);
      expect(await readFile(join(snapshot, "config.json"), "utf8")).toBe('{"model_type":"llama"}');
      const offline = await openCheckpoint(snapshot);
      expect(offline.names).toEqual(["a", "bb", "ccc"]);
      await offline.close();
    });
  });

  test("is looked at by the header of its file; weights are downloaded when the first is read", async () => {
    await inEmptyCache(async (cache) => {
      // Too large to be fetched whole for its first bytes.
      const data = new Uint8Array(2 ** 21).fill(7);
      const tensor = { name: "w", stored: "U8", shape: [data.length], data };
      const model = await collect(writeSafetensors([tensor]));
      const hub = mockHub(
        new Map([
          ["config.json", json({})],
          ["model.safetensors", model],
        ]),
        [],
      );
      let [whole, broken] = [0, 1];
      const watched: typeof fetch = async (input, init) => {
        if (/model\.safetensors$/.test(String(input)) && !new Headers(init?.headers).has("range")) {
          whole++;
          if (broken-- > 0) return new Response("", { status: 404 });
        }
        return hub(input, init);
      };
      const seen: DownloadProgress[] = [];
      await using checkpoint = await openCheckpoint("org/name", {
        revision: "v1",
        accessToken: "hf_test",
        fetch: watched,
        onDownload: (progress) => seen.push(progress),
      });
      const cached = () => readdirSync(join(cache, "models--org--name", "snapshots", COMMIT));
      expect(checkpoint.entry("w").shape).toEqual([2 ** 21]);
      expect([whole, cached(), seen]).toEqual([0, ["config.json"], []]);
      // What failed is tried again.
      await expectRefusal(
        readTensor(checkpoint.entry("w")),
        /org\/name: cannot be fetched from the Hugging Face hub/,
      );
      expect((await readTensor(checkpoint.entry("w")))[0]).toBe(7);
      expect([whole, cached()]).toEqual([2, ["config.json", "model.safetensors"]]);
      const totalBytes = model.length;
      expect(seen.at(-1)).toEqual({ file: "model.safetensors", downloadedBytes: totalBytes, totalBytes });
    });
  });

  test("or its page's address, and what fails for a moment is tried again", async () => {
    await inEmptyCache(async () => {
      const requests: string[] = [];
      const hub = mockHub(await sharded(), requests);
      let failures = 1;
      const shaky: typeof fetch = async (input, init) =>
        failures-- > 0 ? new Response("", { status: 503 }) : hub(input, init);
      const options = { accessToken: "hf_test", fetch: shaky };
      await using checkpoint = await openCheckpoint("https://huggingface.co/org/name/tree/v1", options);
      expect(checkpoint.names).toEqual(["a", "bb", "ccc"]);
      expect(failures).toBeLessThan(0);
    });
  });

  test("and its resolve/<revision> are read by ranges, with the token, which other servers do not get", async () => {
    const requests: string[] = [];
    const hub = mockHub(await sharded(), requests);
    const url = `https://huggingface.co/org/name/resolve/${COMMIT}`;
    await using checkpoint = await openCheckpoint(url, { accessToken: "hf_test", fetch: hub });
    expect(checkpoint.names).toEqual(["a", "bb", "ccc"]);
    const seen: (string | null)[] = [];
    const elsewhere: typeof fetch = async (_, init) => {
      seen.push(new Headers(init?.headers).get("authorization"));
      return new Response("", { status: 404 });
    };
    const options = { accessToken: "hf_test", fetch: elsewhere };
    await expectRefusal(openCheckpoint("https://example.org/org/name", options), /there is no config\.json/);
    expect(new Set(seen)).toEqual(new Set([null]));
  });

  test("that the hub does not have", async () => {
    const fetch = mockHub(new Map(), []);
    const failure = openCheckpoint("org/other", { accessToken: "hf_test", fetch });
    await expectRefusal(
      failure,
      /org\/other: cannot be fetched from the Hugging Face hub: Repository not found/,
    );
  });
});
