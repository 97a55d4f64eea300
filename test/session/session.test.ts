import { afterAll, beforeAll, expect, test } from "vitest";
import { loadModel } from "../../src/index.ts";
import type { SessionClient } from "../../src/session/client.ts";
import type { Progress } from "../../src/session/messages/requests.ts";
import type { ModelSummary } from "../../src/session/messages/results.ts";
import { testDevice } from "../helpers/device.ts";
import { connect, LLAMA, testHost } from "./sessions.ts";

const host = testHost();
let session: SessionClient;
let loaded: ModelSummary;

beforeAll(async () => {
  session = await connect(host);
  loaded = await session.load({ ref: LLAMA });
});
afterAll(() => host.close());

const PROMPT = { parts: "Q: Greece\nA:" };

test("a model is loaded with progress, and says what it is", async () => {
  const told: Progress[] = [];
  const other = await connect(host);
  const { model } = await other.load({ ref: LLAMA, quantise: "int8" }, { onProgress: (p) => told.push(p) });
  expect(told.at(-1)).toMatchObject({ phase: "load" });
  expect(told.at(-1)!.done).toBe(told.at(-1)!.total);
  const library = await loadModel(LLAMA, { device: await testDevice() });
  expect(loaded).toMatchObject({
    layers: library.config.layers,
    width: library.config.width,
    takesPictures: false,
    setting: { model: LLAMA, family: "llama", dtypes: library.storedDtypes },
  });
  expect(loaded.sites.map(({ pattern }) => pattern)).toContain("resid_post.*");
  await other.unload({ model });
  other.close();
  library.dispose();
});

test("encode, run and generate give what the library gives", async () => {
  using library = await loadModel(LLAMA, { device: await testDevice() });
  const prompt = library.prompt(PROMPT.parts);
  const { model } = loaded;
  const encoded = await session.encode({ model, prompt: PROMPT });
  expect(encoded.ids).toEqual([...prompt.ids]);

  const ran = await session.run({
    model,
    prompt: encoded.prompt,
    taps: { v: { site: "resid_post.1", at: -1 }, all: { site: "resid_post.*", at: -1 } },
  });
  const { logits, v } = library.run(prompt, { taps: { v: { kind: "tap", site: "resid_post.1", at: -1 } } });
  const scores = await logits!.read();
  expect(ran.top[0]!.id).toBe(scores.indexOf(Math.max(...scores)));
  expect(ran.taps["v"]!.data).toEqual(await v.read());
  expect(ran.taps["all/resid_post.1"]!.data).toEqual(ran.taps["v"]!.data);

  const tokens: number[] = [];
  const answer = await session.generate(
    { model, prompt: PROMPT, maxNewTokens: 5 },
    { onProgress: ({ token }) => token && tokens.push(token.id) },
  );
  const expected = await library.generate(prompt, { maxNewTokens: 5 });
  expect(answer).toMatchObject({ ids: expected.ids, text: expected.text });
  expect(tokens).toEqual([...expected.ids]);
});
