import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { CheckpointError } from "../../../../src/errors.ts";
import { openCheckpoint } from "../../../../src/model/checkpoint/open-checkpoint.ts";
import { writeSafetensors } from "../../../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { urlFolder } from "../../../../src/model/checkpoint/source/folder.ts";
import { openUrl, urlSource } from "../../../../src/model/checkpoint/source/url-source.ts";
import type { ByteSource } from "../../../../src/platform/platform.ts";
import { collect, utf8 } from "../../../helpers/bytes.ts";
import {
  FileServers,
  type Listener,
  pathOf,
  rangeOf,
  sendRange,
  serveFiles,
} from "../../../helpers/file-server.ts";

const servers = new FileServers();
afterAll(() => servers.close());

const json = (value: unknown) => utf8(JSON.stringify(value));
const PAGE = utf8("\n<!doctype html>\n<html><body>the application</body></html>");
/** Every byte tells where it is. */
const BIG = Uint8Array.from({ length: 3_000_001 }, (_, i) => (i * 2654435761) >>> 24);

async function tensorFile(names: Record<string, number>): Promise<Uint8Array<ArrayBuffer>> {
  const tensors = Object.entries(names).map(([name, length]) => ({
    name,
    stored: "U8",
    shape: [length],
    data: new Uint8Array(length).fill(name.length),
  }));
  return collect(writeSafetensors(tensors));
}

async function model(): Promise<Map<string, Uint8Array>> {
  return new Map([
    ["m/config.json", json({ model_type: "llama" })],
    ["m/model.safetensors", await tensorFile({ a: 1, bb: 2 })],
  ]);
}

async function expectRefusal(action: Promise<unknown>, message: RegExp | string): Promise<void> {
  await expect(action).rejects.toThrow(CheckpointError);
  await expect(action).rejects.toThrow(message);
}

/** Opens a URL with pauses that take no time, and keeps a record of them. */
async function open(url: string, pauses: number[] = []): Promise<ByteSource> {
  const opened = await openUrl(url, fetch, async (pause) => void pauses.push(pause));
  if ("absent" in opened) throw new CheckpointError(`absent: ${opened.absent}`);
  return opened;
}

const hash = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
async function readWhole(source: ByteSource): Promise<string> {
  return hash(await source.read(0, source.size));
}

describe("a folder's URL", () => {
  test("is read by ranges; a header takes one request", async () => {
    const files = await model();
    files.set("m/model.safetensors", await tensorFile({ ccc: 4_000_000 }));
    const log: string[] = [];
    const checkpoint = await openCheckpoint(`${await servers.start(serveFiles(files, log))}/m/`);
    expect(checkpoint.names).toEqual(["ccc"]);
    expect(log).toEqual([
      "GET m/assembly.json ",
      "GET m/config.json ",
      "GET m/model.safetensors bytes=0-131071",
    ]);
    const entry = checkpoint.entry("ccc");
    log.length = 0;
    const read = await collect(entry.stream(2_000_000));
    expect(new Uint32Array(read.buffer).every((v) => v === 3)).toBe(true);
    // u8 becomes u32: a chunk of 2 MB has 500,000 elements
    expect(log.length).toBe(8);
    expect(await checkpoint.json("absent.json")).toBe(undefined);
  });

  test.each(["?sig=a%2Fb&x=1", "#part", "/?sig=a%2Fb#part", "//"])(
    "with %s behind it keeps that behind each file's path, and out of names",
    async (behind) => {
      const files = await model();
      const asked: string[] = [];
      const base = await servers.start((request, response) => {
        asked.push(request.url!);
        serveFiles(files)(request, response);
      });
      const checkpoint = await openCheckpoint(`${base}/m${behind}`);
      expect(checkpoint.names).toEqual(["a", "bb"]);
      expect([checkpoint.name, checkpoint.files[0]!.name]).toEqual([
        `${base}/m`,
        `${base}/m/model.safetensors`,
      ]);
      const query = behind.includes("?") ? "?sig=a%2Fb" : "";
      expect(asked.every((url) => url.includes(query) && url.startsWith("/m/"))).toBe(true);
      if (query) expect(asked).toContain(behind.replace(/^\/?(\?[^#]*).*/, "/m/config.json$1"));
    },
  );

  test("and files may have blanks, letters of any script and signs in their names", async () => {
    const files = new Map([["mein Modell ü/日本 #1?.json", json(1)]]);
    const folder = urlFolder(`${await servers.start(serveFiles(files))}/mein Modell ü`);
    const source = await folder.open("日本 #1?.json");
    expect(await source!.read(0, 1)).toEqual(utf8("1"));
  });

  test.each(["weights.gguf", "weights.safetensors"])("may end like a file's: %s", async (name) => {
    const files = new Map(
      [...(await model())].map(([path, bytes]) => [path.replace("m/", `${name}/`), bytes]),
    );
    const checkpoint = await openCheckpoint(`${await servers.start(serveFiles(files))}/${name}`);
    expect(checkpoint.names).toEqual(["a", "bb"]);
  });

  test("redirects are followed, as the hub's `resolve/main` does", async () => {
    const files = await model();
    const store = await servers.start(serveFiles(files));
    const hub = await servers.start((request, response) => {
      const path = pathOf(request).replace("org/name/resolve/main/", "");
      if (!files.has(`m/${path}`)) return void response.writeHead(404).end();
      response.writeHead(302, { location: `${store}/m/${path}` }).end();
    });
    expect((await openCheckpoint(`${hub}/org/name/resolve/main`)).names).toEqual(["a", "bb"]);
  });
});

test.each([
  ["http://", /not a URL/],
  ["https://user:secret@host/m", /^(?!.*secret).*fetch that sends an Authorization header/],
])("an address that cannot be fetched is refused: %s", async (ref, message) => {
  await expectRefusal(openCheckpoint(ref), message);
});

describe("a file that is not there", () => {
  const missing: Record<string, [listener: Listener, why: RegExp]> = {
    "404": [(_, r) => r.writeHead(404).end(), /404 Not Found/],
    "410": [(_, r) => r.writeHead(410).end(), /410 Gone/],
    "403, as stores do": [(_, r) => r.writeHead(403).end("<Error/>"), /403 Forbidden/],
    "a page with 200, as Vite does": [
      (_, r) => r.writeHead(200, { "content-type": "text/html" }).end(PAGE),
      /an HTML page in place of it/,
    ],
    "a page of no known type": [(_, r) => r.end(PAGE), /an HTML page in place of it/],
    "a page's first bytes with 206": [
      (q, r) => sendRange(q, r, PAGE, { "content-type": "text/html" }),
      /an HTML page in place of it/,
    ],
    "a piece of a page": [
      (_, r) => r.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end("<p>404"),
      /an HTML page in place of it/,
    ],
  };

  test.each(Object.entries(missing))("is one where it is optional: %s", async (_, [absent, why]) => {
    const files = await model();
    const listener: Listener = (request, response) => {
      const file = files.get(pathOf(request));
      if (file) sendRange(request, response, file);
      else absent(request, response);
    };
    const base = await servers.start(listener);
    const checkpoint = await openCheckpoint(`${base}/m`);
    expect(checkpoint.names).toEqual(["a", "bb"]);
    expect(await checkpoint.text("chat_template.jinja")).toBe(undefined);

    files.delete("m/config.json");
    await expectRefusal(openCheckpoint(`${base}/m`), /\/m: there is no config\.json \(the server /);
    await expectRefusal(openCheckpoint(`${base}/m`), why);
    files.set("m/config.json", json({ model_type: "llama" }));
    files.delete("m/model.safetensors");
    await expectRefusal(
      openCheckpoint(`${base}/m`),
      /neither model\.safetensors \(the server .*\) nor model/,
    );
    await expectRefusal(openCheckpoint(`${base}/m.safetensors`), /no such file: the server/);
    await expectRefusal(openCheckpoint(`${base}/m`, { adapters: [`${base}/lora`] }), why);
    expect(await urlSource(`${base}/x.json`)).toBe(undefined);
  });

  test("JSON that is called a page is JSON, and a template may begin with <", async () => {
    const files = new Map([
      ["a.json", json({ a: 1 })],
      ["a.jinja", utf8("<s>{{ messages }}")],
    ]);
    const base = await servers.start((q, r) =>
      sendRange(q, r, files.get(pathOf(q))!, { "content-type": "text/html" }),
    );
    for (const [path, bytes] of files) {
      expect(await (await open(`${base}/${path}`)).read(0, bytes.length)).toEqual(bytes);
    }
  });
});

describe("a server without ranges", () => {
  const whole: Record<string, Listener> = {
    "with a length": (_, r) => r.writeHead(200, { "content-length": BIG.length }).end(BIG),
    "without a length": (_, r) => {
      r.write(BIG.subarray(0, 1_000_000));
      r.end(BIG.subarray(1_000_000));
    },
    "compressed on the way": (_, r) => {
      const body = gzipSync(BIG);
      r.writeHead(200, { "content-encoding": "gzip", "content-length": body.length }).end(body);
    },
  };

  test.each(Object.entries(whole))("may send a small file whole, %s", async (_, listener) => {
    let requests = 0;
    const base = await servers.start((q, r) => {
      requests++;
      listener(q, r);
    });
    const source = await open(`${base}/x.safetensors`);
    expect(source.size).toBe(BIG.length);
    expect(await readWhole(source)).toBe(hash(BIG));
    expect(await source.read(1_234_567, 3)).toEqual(BIG.slice(1_234_567, 1_234_570));
    expect(requests).toBe(1);
  });

  test("and one that broke off is fetched again", async () => {
    let requests = 0;
    const base = await servers.start((_, response) => {
      response.writeHead(200, { "content-length": BIG.length });
      if (++requests < 3) response.write(BIG.subarray(0, 100_000), () => response.destroy());
      else response.end(BIG);
    });
    expect(await readWhole(await open(base))).toBe(hash(BIG));
    expect(requests).toBe(3);
  });

  test("and so is one with text, which may be compressed, up to a limit", async () => {
    const text = utf8(JSON.stringify({ vocab: "x".repeat(300_000) }));
    const ranges: (string | undefined)[] = [];
    const base = await servers.start((request, response) => {
      ranges.push(request.headers.range);
      const body = gzipSync(text);
      response.writeHead(200, { "content-encoding": "gzip", "content-length": body.length }).end(body);
    });
    const source = await open(`${base}/tokenizer.json?key=1`);
    expect(await source.read(0, source.size)).toEqual(text);
    expect(ranges).toEqual([undefined]);
    const endless = await servers.start((_, r) => r.writeHead(200, { "content-length": 2 ** 40 }).write("x"));
    await expectRefusal(open(`${endless}/a.json`), /1099511627776 bytes are over the limit of 268435456/);
  });

  test("is refused for a large file, with or without a length, before it is read", async () => {
    const known = await servers.start((_, r) => r.writeHead(200, { "content-length": 2 ** 40 }).write("x"));
    await expectRefusal(
      open(known),
      /does not answer range requests \(206 Partial Content\): it sends the whole file of 1099511627776 bytes/,
    );
    const piece = new Uint8Array(2 ** 20);
    let sent = 0;
    const endless = await servers.start((_, response) => {
      const more = () => {
        sent += piece.length;
        if (!response.destroyed) response.write(piece, more);
      };
      more();
    });
    await expectRefusal(open(endless), /does not answer range requests/);
    expect(sent).toBeLessThan(200 * 2 ** 20);
  });
});

describe("what fails for a moment", () => {
  /** Fails as often as `failures` says before each right answer. */
  function shaky(failures: number, fail: Listener, log: string[] = []): Listener {
    let left = failures;
    return (request, response) => {
      log.push(request.headers.range ?? "");
      if (left-- > 0) return fail(request, response);
      left = failures;
      sendRange(request, response, BIG);
    };
  }
  const FAILURES: Record<string, Listener> = {
    "hanging up": (_, r) => r.destroy(),
    "429": (_, r) => r.writeHead(429).end(),
    "500": (_, r) => r.writeHead(500).end("x"),
    "503": (_, r) => r.writeHead(503).end(),
  };

  test.each(Object.entries(FAILURES))("is tried again, with growing pauses: %s", async (_, fail) => {
    const pauses: number[] = [];
    const source = await open(await servers.start(shaky(3, fail)), pauses);
    expect(await readWhole(source)).toBe(hash(BIG));
    expect(pauses).toEqual([250, 750, 2250, 250, 750, 2250]);
  });

  test.each<[name: string, message: RegExp]>([
    ["hanging up", /cannot be reached/],
    ["429", /answered 429/],
    ["500", /answered 500/],
    ["503", /answered 503/],
  ])("is given up after three more attempts: %s", async (name, message) => {
    const log: string[] = [];
    const base = await servers.start(shaky(4, FAILURES[name]!, log));
    await expectRefusal(open(base), message);
    expect(log.length).toBe(4);
  });

  test.each([400, 401, 405, 414, 451, 501])("not %s, which is for good", async (status) => {
    let requests = 0;
    const base = await servers.start((_, response) => {
      requests++;
      response.writeHead(status).end();
    });
    await expectRefusal(open(base), `the server answered ${status}`);
    expect(requests).toBe(1);
  });

  test("waits as long as Retry-After says, unless that is too long", async () => {
    const answer = (retryAfter: string): Listener =>
      shaky(1, (_, r) => r.writeHead(429, { "retry-after": retryAfter }).end());
    const pauses: number[] = [];
    await open(await servers.start(answer("7")), pauses);
    await open(await servers.start(answer(new Date(Date.now() + 20_000).toUTCString())), pauses);
    expect(pauses[0]).toBe(7000);
    expect(Math.abs(pauses[1]! - 20_000)).toBeLessThan(1500);
    await expectRefusal(
      open(await servers.start(answer("3600"))),
      /answered 429 Too Many Requests \(Retry-After: 3600\)/,
    );
  });

  test.each([
    ["with a length", true],
    ["without one", false],
  ])("an answer that breaks off is gone on with where it broke off, %s", async (_, withLength) => {
    const log: string[] = [];
    const base = await servers.start((request, response) => {
      log.push(request.headers.range!);
      const [first, last] = rangeOf(request, BIG.length);
      const body = BIG.subarray(first, Math.min(last + 1, first + 400_000));
      const headers: Record<string, string | number> = {
        "content-range": `bytes ${first}-${last}/${BIG.length}`,
      };
      if (withLength) headers["content-length"] = last + 1 - first;
      response.writeHead(206, headers);
      if (body.length === last + 1 - first || !withLength) response.end(body);
      else response.write(body, () => setTimeout(() => response.destroy(), 20));
    });
    const source = await open(base);
    log.length = 0;
    const part = await source.read(200_000, 1_500_000);
    expect(hash(part)).toBe(hash(BIG.subarray(200_000, 1_700_000)));
    expect(log).toEqual([
      "bytes=200000-1699999",
      "bytes=600000-1699999",
      "bytes=1000000-1699999",
      "bytes=1400000-1699999",
    ]);
    // Without getting on, it ends.
    await expectRefusal(source.read(200_000, 2_500_000), /expected|cannot be read/);
  });
});

describe("a server that answers oddly", () => {
  test("with less than the range asked for, is asked for the rest", async () => {
    const base = await servers.start((request, response) => {
      const [first, last] = rangeOf(request, BIG.length);
      const end = Math.min(last + 1, first + 300_000);
      response
        .writeHead(206, { "content-range": `bytes ${first}-${end - 1}/${BIG.length}` })
        .end(BIG.subarray(first, end));
    });
    expect(await readWhole(await open(base))).toBe(hash(BIG));
  });

  test("with more than the range asked for, is cut off", async () => {
    const base = await servers.start((request, response) => {
      const [first] = rangeOf(request, BIG.length);
      response
        .writeHead(206, { "content-range": `bytes ${first}-${BIG.length - 1}/${BIG.length}` })
        .end(BIG.subarray(first));
    });
    const source = await open(base);
    expect(await source.read(1_000_000, 5)).toEqual(BIG.slice(1_000_000, 1_000_005));
  });

  test("with 416 for a range beyond the end, is asked for one byte", async () => {
    const base = await servers.start((request, response) => {
      const last = Number(/-(\d+)$/.exec(request.headers.range!)![1]);
      if (last >= 5) response.writeHead(416).end();
      else sendRange(request, response, BIG.subarray(0, 5));
    });
    const source = await open(base);
    expect(await source.read(0, 5)).toEqual(BIG.slice(0, 5));
  });

  test("with a file of no bytes", async () => {
    const files = new Map([["empty.safetensors", new Uint8Array(0)]]);
    const base = await servers.start(serveFiles(files));
    await expectRefusal(openCheckpoint(`${base}/empty.safetensors`), /0 bytes are too few/);
    await expectRefusal(openCheckpoint(`${base}/absent.safetensors`), /no such file/);
  });

  test.each<[problem: string, headers: Record<string, string>, message: RegExp]>([
    ["no size", { "content-range": "bytes 0-0/*" }, /"bytes 0-0\/\*", without a size/],
    ["no Content-Range", {}, /Content-Range is "", without a size/],
    [
      "a compressed part",
      { "content-range": "bytes 0-0/9", "content-encoding": "br" },
      /part of the file compressed/,
    ],
  ])("with %s, is refused", async (_, headers, message) => {
    await expectRefusal(open(await servers.start((_, r) => r.writeHead(206, headers).end("x"))), message);
  });

  /** Ten bytes, with right first ones; asked for the sixth and seventh it gives the answer of the test. */
  const tenBytes =
    (range: string, body: string): Listener =>
    (request, response) => {
      const first = request.headers.range!.startsWith("bytes=0-");
      response.writeHead(206, { "content-range": first ? "bytes 0-3/10" : range }).end(first ? "0123" : body);
    };
  test.each<[problem: string, range: string, body: string, message: RegExp]>([
    ["no bytes", "bytes 4-3/10", "", /expected 10 bytes at 0, found 4/],
    ["another range", "bytes 1-2/10", "xx", /asked for bytes from 4 of 10, got bytes from 1 of 10/],
    ["a file of another size", "bytes 4-5/11", "xx", /got bytes from 4 of 11/],
    ["too little", "bytes 4-9/10", "", /expected 10 bytes at 0, found 4/],
    ["too much", "bytes 4-9/10", "x".repeat(1e6), /more than the 6 bytes that were to come/],
  ])("with %s, is refused", async (_, range, body, message) => {
    await expectRefusal(open(await servers.start(tenBytes(range, body))), message);
  });

  test("reads outside of the file are refused", async () => {
    const source = await open(await servers.start((q, r) => sendRange(q, r, BIG)));
    await expectRefusal(source.read(BIG.length - 1, 2), /not in a file of 3000001 bytes/);
  });
});
