import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { JSHandle } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { GoldenFile } from "../../src/parity/golden-file.ts";
import { BrowserPage } from "../helpers/browser.ts";
import { expectClose } from "../helpers/compare.ts";
import { FileServers, pathOf, sendRange } from "../helpers/file-server.ts";

type Library = typeof import("../../src/index.ts");

const ANY_ORIGIN = { "access-control-allow-origin": "*" };

let browser: BrowserPage;
let library: JSHandle<Library>;
beforeAll(async () => {
  browser = await BrowserPage.open();
  library = await browser.import<Library>("/src/index.ts");
});
afterAll(() => browser?.close());

function caseOf(fixture: string, index: number) {
  return JSON.parse(readFileSync(`test/fixtures/${fixture}/case.json`, "utf8")).cases[index];
}

async function golden(fixture: string, name: string): Promise<Float32Array> {
  await using file = await GoldenFile.open(`test/fixtures/${fixture}/golden.safetensors`);
  return (await file.read(name)).values as Float32Array;
}

describe("the library in headless Chromium", () => {
  test("draws figures, as PNG too, and shows them on the page", async () => {
    const found = await browser.page.evaluate(async (xpatch) => {
      const data = { rows: ["Ж 天"], columns: [0, 1], values: [[0, 1]] };
      const figure = xpatch.heatFigure(data, { title: "a title" });
      const image = await xpatch.loadImage(new Blob([await figure.png({ zoom: 1 })]));
      await xpatch.show(figure);
      const svg = document.querySelector("figure > svg")!;
      const { width, height } = svg.getBoundingClientRect();
      // viridis: dark violet and yellow
      const has = (r: number, g: number, b: number) =>
        image.data.some(
          (red, i) => i % 3 === 0 && red === r && image.data[i + 1] === g && image.data[i + 2] === b,
        );
      return {
        png: [image.width, image.height],
        shown: [Math.round(width), Math.round(height)],
        colours: [has(68, 1, 84), has(253, 231, 37), has(1, 2, 3)],
        texts: [...svg.querySelectorAll("text")].map((text) => text.textContent),
      };
    }, library);
    expect(found.png).toEqual(found.shown);
    expect(found.colours).toEqual([true, true, false]);
    expect(found.texts).toEqual(expect.arrayContaining(["a title", "Ж 天", "0", "1"]));
  });

  test("reads a data set of Hugging Face: Parquet in gzip, with pictures and class labels", async () => {
    const file = "test/fixtures/datasets/animals/data/test-00000-of-00001.parquet";
    const bytes = [...readFileSync(file)];
    const found = await browser.page.evaluate(
      async ([xpatch, numbers]) => {
        const source = xpatch.memorySource(new Uint8Array(numbers), "test.parquet");
        const columns = { output: "label", image: "image", input: "title" };
        const items: unknown[] = [];
        for await (const { fields, image } of xpatch.datasetItems([{ source, split: "test" }], columns)) {
          const { width, height } = await xpatch.loadImage(image as Uint8Array<ArrayBuffer>);
          items.push([fields, width, height]);
        }
        return items;
      },
      [library, bytes] as const,
    );
    expect(found).toEqual([
      [{ input: "animal 9", output: ["cat"] }, 4, 3],
      [{ input: "animal 10", output: ["dog"] }, 4, 3],
    ]);
  });

  test("has none of the models that come with xpatch, and says what to do", async () => {
    const message = await browser.page.evaluate(
      (xpatch) => xpatch.openCheckpoint("xpatch:vlm").then(String, (error: Error) => `${error}`),
      library,
    );
    expect(message).toMatch(
      /^CheckpointError: xpatch:vlm: a browser .* pass the URL of weights\/vlm, and as base/,
    );
  });

  test("runs a Llama from a URL as transformers does", async () => {
    const { text, generate } = caseOf("llama", 0);
    const found = await browser.page.evaluate(
      async ([xpatch, prompt]) => {
        const device = await xpatch.openDevice();
        const model = await xpatch.loadModel(`${location.origin}/test/fixtures/llama/model`, { device });
        const tokens = model.prompt(prompt);
        const { x } = model.run(tokens, { taps: { x: xpatch.tap("resid_post.2") } });
        const patched = model.run(tokens, {
          edits: [xpatch.set("resid_post.1", -1, new Float32Array(48))],
        });
        const plain = model.run(tokens);
        const answer = await model.generate(tokens, { maxNewTokens: 5, stopIds: [] });
        const result = {
          x: [...(await x.read())],
          patched: [...(await patched.logits!.read())],
          plain: [...(await plain.logits!.read())],
          ids: answer.ids,
        };
        await device.destroy();
        return result;
      },
      [library, text] as const,
    );
    expect(found.ids).toEqual(generate.ids);
    expectClose(found.x, await golden("llama", "case0/resid_post.2"), { atol: 1e-4, rtol: 1e-4 });
    expect(found.patched).not.toEqual(found.plain);
  });

  test("runs LLaVA on an ImageBitmap as transformers does", async () => {
    const { text, images, generate } = caseOf("llava", 0);
    const found = await browser.page.evaluate(
      async ([xpatch, prompt, file]) => {
        const device = await xpatch.openDevice();
        const model = await xpatch.loadModel(`${location.origin}/test/fixtures/llava/model`, { device });
        const picture = await fetch(`${location.origin}/test/fixtures/images/${file}`).then((r) => r.blob());
        const bitmap = await createImageBitmap(picture, { colorSpaceConversion: "none" });
        const tokens = model.prompt(prompt, { images: [await xpatch.loadImage(bitmap)] });
        const { projector, stream } = model.run(tokens, {
          taps: { projector: xpatch.tap("projector"), stream: xpatch.tap("resid_post.2") },
        });
        const answer = await model.generate(tokens, { maxNewTokens: 5, stopIds: [] });
        const result = {
          projector: [...(await projector.read())],
          stream: [...(await stream.read())],
          ids: answer.ids,
          span: tokens.spans["image"],
        };
        await device.destroy();
        return result;
      },
      [library, text, images[0]] as const,
    );
    expect(found.span).toEqual({ start: 8, end: 24, grid: { rows: 4, columns: 4 } });
    expect(found.ids).toEqual(generate.ids);
    expectClose(found.projector, await golden("llava", "case0/projector.out"), { atol: 1e-4, rtol: 1e-4 });
    expectClose(found.stream, await golden("llava", "case0/resid_post.2"), { atol: 1e-4, rtol: 1e-4 });
  });

  test("trains a LoRA as PyTorch does, saves it and loads it again", async () => {
    const { lora } = JSON.parse(readFileSync("test/fixtures/llama/gradients.json", "utf8"));
    await using goldens = await GoldenFile.open("test/fixtures/llama/gradients.safetensors");
    const values = async (name: string) => [...(await goldens.read(name)).values];
    const start: Record<string, number[]> = {};
    for (const module of lora.modules) start[module] = await values(`lora/start/${module}.A`);
    const found = await browser.page.evaluate(
      async ([xpatch, prompt, spec, start]) => {
        const device = await xpatch.openDevice();
        const url = `${location.origin}/test/fixtures/llama/model`;
        const model = await xpatch.loadModel(url, { device });
        const tokens = model.prompt(prompt);
        const { rank, alpha, modules } = spec;
        const lora = new xpatch.Lora(model, { rank, alpha, modules });
        for (const [module, a] of Object.entries(start)) {
          const bytes = new Uint8Array(Float32Array.from(a).buffer);
          device.write(lora.parameters[`${module}.lora_A.weight`]!, bytes);
        }
        const trainer = new xpatch.Trainer(model, {
          parameters: lora.parameters,
          learningRate: spec.lr,
          maxGradNorm: spec.max_grad_norm,
        });
        const losses: number[] = [];
        for (let step = 0; step < spec.steps; step++) losses.push(await trainer.step([tokens]).loss.item());
        losses.push(await trainer.evaluate([tokens]).item());
        const files = new Map<string, Blob>();
        await xpatch.saveAdapter(lora, model, {
          async write(name, chunks) {
            const parts: BlobPart[] = [];
            for await (const chunk of chunks) parts.push(chunk as Uint8Array<ArrayBuffer>);
            files.set(name, new Blob(parts));
          },
        });
        const trained = [...(await model.run(tokens).logits!.read())];
        const adapted = await xpatch.loadModel(url, { device, adapters: [xpatch.memoryFolder(files)] });
        const loaded = [...(await adapted.run(tokens).logits!.read())];
        await device.destroy();
        return { losses, trained, loaded };
      },
      [library, caseOf("llama", 0).text as string, lora, start] as const,
    );
    expectClose(found.losses, await values("lora/losses"), { atol: 0, rtol: 1e-4 });
    expect(found.losses.at(-1)).toBeLessThan(0.9 * found.losses[0]!);
    expectClose(found.loaded, found.trained, { atol: 1e-5, rtol: 1e-5 });
  });

  test("loads from another origin, which hides Content-Range and compresses JSON", async () => {
    const { text, generate } = caseOf("llama", 0);
    const methods = new Set<string>();
    const servers = new FileServers();
    const base = await servers.start((request, response) => {
      methods.add(request.method!);
      const path = join("test/fixtures/llama/model", pathOf(request));
      if (!existsSync(path)) return void response.writeHead(404, ANY_ORIGIN).end();
      if (!path.endsWith(".json")) return sendRange(request, response, readFileSync(path), ANY_ORIGIN);
      const body = gzipSync(readFileSync(path));
      response
        .writeHead(200, { ...ANY_ORIGIN, "content-encoding": "gzip", "content-length": body.length })
        .end(body);
    });
    try {
      const ids = await browser.page.evaluate(
        async ([xpatch, url, prompt]) => {
          const device = await xpatch.openDevice();
          const model = await xpatch.loadModel(url, { device });
          const answer = await model.generate(model.prompt(prompt), { maxNewTokens: 5, stopIds: [] });
          await device.destroy();
          return answer.ids;
        },
        [library, base, text] as const,
      );
      expect(ids).toEqual(generate.ids);
      expect([...methods]).toEqual(["GET"]);
    } finally {
      servers.close();
    }
  });

  test("puts a model together from its parts, by URL", async () => {
    const picture = "photo.png";
    const found = await browser.page.evaluate(
      async ([xpatch, file]) => {
        const device = await xpatch.openDevice();
        const model = await xpatch.loadModel(`${location.origin}/weights/nano/vlm`, { device });
        const image = await xpatch.loadImage(`${location.origin}/test/fixtures/images/${file}`);
        const tokens = model.prompt(["Q:", image, "\nA: red\n\nQ:"]);
        const { x } = model.run(tokens, { taps: { x: xpatch.tap("resid_post.3") } });
        const result = {
          x: [...(await x.read())],
          adapters: model.adapters.map((name) => new URL(name).pathname),
        };
        await device.destroy();
        return result;
      },
      [library, picture] as const,
    );
    expect(found.adapters).toEqual(["/weights/nano/llm", "/weights/nano/vlm/adapter"]);
    expectClose(found.x, await golden("nano-vlm", "case0/resid_post.3"), { atol: 1e-4, rtol: 1e-4 });
  });
});
