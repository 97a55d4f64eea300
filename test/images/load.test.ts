import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test, vi } from "vitest";
import { ImageError } from "../../src/errors.ts";
import { decodeImage } from "../../src/images/files/decode.ts";
import { type ImageSource, loadImage } from "../../src/images/files/load.ts";
import { IMAGES, imageFile } from "../helpers/image-goldens.ts";

const bytes = imageFile("photo.png");
const photo = await decodeImage(bytes);
const path = fileURLToPath(new URL("photo.png", IMAGES));

async function refusal(source: ImageSource, options = {}): Promise<string> {
  const error = await loadImage(source, options).then(
    () => expect.fail("it loaded"),
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(ImageError);
  return error.message;
}

async function withServer(answer: RequestListener, use: (origin: string) => Promise<void>) {
  const server = createServer(answer);
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

afterEach(() => vi.unstubAllGlobals());

describe("loadImage", () => {
  test.each<[string, ImageSource]>([
    ["a path", path],
    ["a file: URL", new URL("photo.png", IMAGES)],
    ["a file: URL as a string", new URL("photo.png", IMAGES).href],
    ["a data: URL", `data:image/png;base64,${Buffer.from(bytes).toString("base64")}`],
    ["bytes", bytes],
    [
      "bytes in the middle of a buffer",
      Uint8Array.from([1, 2, 3, ...bytes, 4]).subarray(3, 3 + bytes.length),
    ],
    ["an ArrayBuffer", bytes.buffer],
    ["a Blob", new Blob([bytes])],
    ["8-bit RGB", photo],
  ])("%s", async (_, source) => expect(await loadImage(source)).toEqual(photo));

  test("ImageData has alpha", async () => {
    const data = Uint8ClampedArray.of(0, 100, 200, 51);
    const found = await loadImage({ width: 1, height: 1, data } as unknown as ImageData);
    const opaque = Uint8Array.of(0, 100, 200);
    expect(found).toEqual({ width: 1, height: 1, data: Uint8Array.of(204, 224, 244), opaque });
    expect(await loadImage(found)).toEqual(found);
  });

  test("an ImageBitmap is drawn on white", async () => {
    const calls: unknown[] = [];
    class FakeCanvas {
      readonly width: number;
      readonly height: number;
      constructor(width: number, height: number) {
        this.width = width;
        this.height = height;
      }
      getContext() {
        const context = {
          fillStyle: "",
          fillRect: (...area: number[]) => calls.push([context.fillStyle, ...area]),
          drawImage: (...drawn: unknown[]) => calls.push(drawn),
          getImageData: () => ({ data: Uint8ClampedArray.of(1, 2, 3, 255, 4, 5, 6, 255) }),
        };
        return context;
      }
    }
    vi.stubGlobal("OffscreenCanvas", FakeCanvas);
    const bitmap = { width: 2, height: 1, close() {} } as ImageBitmap;
    expect(await loadImage(bitmap)).toEqual({ width: 2, height: 1, data: Uint8Array.of(1, 2, 3, 4, 5, 6) });
    expect(calls).toEqual([
      ["white", 0, 0, 2, 1],
      [bitmap, 0, 0],
    ]);
  });

  test("over HTTP", async () => {
    await withServer(
      (_, response) => response.end(bytes),
      async (origin) => {
        expect(await loadImage(`${origin}/photo.png`)).toEqual(photo);
        expect(await loadImage(new URL(`${origin}/photo.png`))).toEqual(photo);
      },
    );
  });

  test("with a fetch of the caller's", async () => {
    const get = vi.fn(async () => new Response(bytes));
    expect(await loadImage("https://example.org/photo.png", { fetch: get })).toEqual(photo);
    expect(get).toHaveBeenCalledWith("https://example.org/photo.png");
  });
});

describe("loadImage refuses", () => {
  test("what is not there, naming it", async () => {
    expect(await refusal("no/such/picture.png")).toMatch(
      /no\/such\/picture\.png: .*ENOENT|cannot open no\/such/,
    );
    expect(await refusal(fileURLToPath(IMAGES))).toContain(fileURLToPath(IMAGES));
  });

  test("what does not decode, naming it", async () => {
    const source = new URL("formats/make.py", IMAGES).href;
    expect(await refusal(source)).toMatch(/make\.py: expected a PNG, JPEG or WebP picture, found/);
    const data = `data:text/plain,${"x".repeat(1000)}`;
    const message = await refusal(data);
    expect(message).toMatch(/^data:text\/plain,x+…: expected a PNG/);
    expect(message.length).toBeLessThan(400);
  });

  test("an error of the server, and a server that is not there", async () => {
    let gone = "";
    await withServer(
      (_, response) => response.writeHead(404).end("nothing"),
      async (origin) => {
        gone = `${origin}/a.png`;
        expect(await refusal(gone)).toBe(`${gone}: expected a picture, found 404 Not Found`);
      },
    );
    expect(await refusal(gone)).toMatch(/a\.png: fetch failed/);
  });

  test("an answer without end", async () => {
    let sent = 0;
    const endless: RequestListener = (_, response) => {
      const send = () => {
        sent += 2 ** 16;
        if (!response.destroyed) response.write(new Uint8Array(2 ** 16), () => setImmediate(send));
      };
      send();
    };
    await withServer(endless, async (origin) => {
      expect(await refusal(`${origin}/a.png`, { maxPixels: 100 })).toMatch(/at most 1049376 bytes/);
    });
    expect(sent).toBeLessThan(2 ** 25);
  });

  test("files, Blobs, pixels and bitmaps that are too large", async () => {
    expect(await refusal(path, { maxPixels: 10 })).toMatch(/photo\.png: expected at most 10 pixels/);
    expect(await refusal(new Blob([new Uint8Array(2 ** 21)]), { maxPixels: 10 })).toMatch(
      /at most 1048656 bytes/,
    );
    expect(await refusal(photo, { maxPixels: 10 })).toMatch(/97 x 64 = 6208/);
    expect(await refusal({ width: 9999, height: 9999, close() {} } as ImageBitmap)).toMatch(
      /at most 67108864 pixels/,
    );
  });

  test("pixels whose number does not fit", async () => {
    const short = { width: 2, height: 2, data: new Uint8Array(11) };
    expect(await refusal(short)).toMatch(/bytes for each of 2 x 2 pixels, found 11 bytes/);
  });

  test("a bitmap where there is no canvas", async () => {
    expect(await refusal({ width: 1, height: 1, close() {} } as ImageBitmap)).toMatch(/OffscreenCanvas/);
  });
});
