import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as errors from "../../src/errors.ts";
import { SessionClient } from "../../src/session/client.ts";
import { SessionHost } from "../../src/session/host.ts";
import type { ClientMessage, HostMessage } from "../../src/session/messages/protocol.ts";
import type { ModelHandle } from "../../src/session/messages/values.ts";
import { decodeError, encodeError } from "../../src/session/messages/wire-error.ts";
import { inProcess } from "../../src/session/ports/in-process.ts";
import { type Chores, OWN_CHORES } from "../../src/session/state/chores.ts";
import { FairQueue } from "../../src/session/state/fair-queue.ts";
import { testDevice } from "../helpers/device.ts";
import { connect, LLAMA, LLAVA, testHost } from "./sessions.ts";

// Clients of a host: versions, turns, requests that are given up, what is kept and freed.

const host = testHost();
let session: SessionClient;
let model: ModelHandle;

beforeAll(async () => {
  session = await connect(host);
  ({ model } = await session.load({ ref: LLAMA }));
});
afterAll(() => host.close());

const PROMPT = { parts: "Q: Greece\nA: Athens\n\nQ: Italy\nA:" };
/** Long enough to be given up on the way. */
const LONG = { prompt: PROMPT, maxNewTokens: 60, stopIds: [] };

/** A raw connection: what it is sent, and a way to send anything. */
function rawPort(to = host) {
  const { client, host: end } = inProcess();
  void to.attach(end);
  const received: HostMessage[] = [];
  let wake = () => {};
  let ended = false;
  client.listen(
    (message) => {
      received.push(message);
      wake();
    },
    () => {
      ended = true;
      wake();
    },
  );
  const until = async (holds: () => boolean) => {
    while (!holds()) await new Promise<void>((resolve) => (wake = resolve));
  };
  return {
    send: (message: unknown) => client.send(message as ClientMessage),
    received,
    answer: async (id: number) => {
      const found = () => received.find((m) => m.id === id && m.type !== "progress");
      await until(() => found() !== undefined || ended);
      return found();
    },
    ended: () => until(() => ended),
  };
}

describe("hello", () => {
  test("a client of another version is refused by name, and let go", async () => {
    const port = rawPort();
    port.send({ type: "request", id: 1, name: "hello", params: { version: 99 } });
    expect(await port.answer(1)).toMatchObject({
      type: "error",
      error: {
        name: "SessionError",
        fields: { code: "version" },
        message: expect.stringContaining("version 1"),
      },
    });
    await port.ended();
  });

  test("nothing is done before it", async () => {
    const port = rawPort();
    port.send({ type: "request", id: 1, name: "models", params: {} });
    expect(await port.answer(1)).toMatchObject({ type: "error", error: { fields: { code: "message" } } });
    await port.ended();
  });

  test("it is said once", async () => {
    const client = await connect(host);
    await expect(client.request("hello", { version: 1 })).rejects.toMatchObject({ code: "message" });
    expect(await client.models()).toMatchObject({ anyRef: true });
    client.close();
  });

  test.each([null, 7, "x", [], {}, { type: "request" }, { type: "request", id: -1 }, { type: "x", id: 1 }])(
    "%j is no message, and ends the connection",
    async (message) => {
      const port = rawPort();
      port.send(message);
      await port.ended();
      expect(port.received).toMatchObject([{ type: "error", error: { fields: { code: "message" } } }]);
    },
  );
});

describe("turns", () => {
  test("owners take turns, each in its own order", async () => {
    const queue = new FairQueue<string>();
    const done: string[] = [];
    const { signal } = new AbortController();
    const work = (name: string) => async () => {
      await new Promise((resolve) => setTimeout(resolve, 1));
      done.push(name);
    };
    await Promise.all(
      ["a1", "a2", "a3", "b1", "b2", "c1"].map((name) => queue.add(name[0]!, work(name), { signal })),
    );
    expect(done).toEqual(["a1", "a2", "b1", "c1", "a3", "b2"]);
  });

  test("who waits hears how many are before it, and may leave", async () => {
    const queue = new FairQueue<string>();
    const places: number[] = [];
    let release = () => {};
    const running = queue.add("a", () => new Promise<void>((resolve) => (release = resolve)), {
      signal: new AbortController().signal,
    });
    const leaving = new AbortController();
    const left = queue.add("b", async () => {}, { signal: leaving.signal });
    const last = queue.add("c", async () => "done", {
      signal: new AbortController().signal,
      onPlace: (ahead) => places.push(ahead),
    });
    leaving.abort(new Error("left"));
    await expect(left).rejects.toThrow("left");
    release();
    expect(await last).toBe("done");
    await running;
    expect(places).toEqual([2, 1]);
    expect(queue.length).toBe(0);
  });

  test("a client with one request does not wait for all of another's", async () => {
    const [greedy, modest] = [await connect(host), await connect(host)];
    const { model: own } = await greedy.load({ ref: LLAMA });
    const { model: other } = await modest.load({ ref: LLAMA });
    const order: string[] = [];
    const many = Array.from({ length: 6 }, (_, i) =>
      greedy.generate({ model: own, prompt: PROMPT, maxNewTokens: 5 }).then(() => order.push(`greedy ${i}`)),
    );
    const one = modest.run({ model: other, prompt: PROMPT }).then(() => order.push("modest"));
    await Promise.all([...many, one]);
    expect(order.indexOf("modest")).toBeLessThan(3);
    greedy.close();
    modest.close();
  });

  test("a model that one client has loaded is there for the next", async () => {
    const other = await connect(host);
    const { models } = await connect(testHost({ offer: { models: [{ ref: LLAMA, label: "l" }] } })).then(
      (c) => c.models(),
    );
    expect(models).toEqual([{ ref: LLAMA, label: "l", loaded: false }]);
    const before = (await testDevice()).memory.liveBytes;
    const told: string[] = [];
    const { model: shared } = await other.load(
      { ref: LLAMA },
      { onProgress: ({ phase }) => told.push(phase) },
    );
    expect((await testDevice()).memory.liveBytes).toBe(before);
    expect(told).toEqual([]);
    await other.unload({ model: shared });
    expect(await session.run({ model, prompt: PROMPT, top: 1 })).toMatchObject({ top: [{}] });
    other.close();
  });
});

describe("giving up", () => {
  test("a generation stops at the next token, and the next request is carried out", async () => {
    const controller = new AbortController();
    let tokens = 0;
    const answer = session.generate(
      { model, ...LONG },
      {
        signal: controller.signal,
        onProgress: ({ phase }) => {
          if (phase === "token" && ++tokens === 3) controller.abort();
        },
      },
    );
    await expect(answer).rejects.toMatchObject({ name: "AbortError" });
    await session.run({ model, prompt: PROMPT });
    expect(tokens).toBeLessThan(10);
  });

  test("the host says that it was, to a client that waits for it", async () => {
    const port = rawPort();
    port.send({ type: "request", id: 1, name: "hello", params: { version: 1 } });
    await port.answer(1);
    port.send({ type: "request", id: 2, name: "load", params: { ref: LLAMA } });
    const loaded = (await port.answer(2)) as { result: { model: string } };
    port.send({ type: "request", id: 3, name: "generate", params: { model: loaded.result.model, ...LONG } });
    port.send({
      type: "request",
      id: 4,
      name: "run",
      params: { model: loaded.result.model, prompt: PROMPT },
    });
    port.send({ type: "cancel", id: 4 });
    port.send({ type: "cancel", id: 3 });
    for (const id of [3, 4]) {
      expect(await port.answer(id)).toMatchObject({
        type: "error",
        error: { fields: { code: "cancelled" } },
      });
    }
    port.send({ type: "cancel", id: 77 }); // nobody's: nothing happens
    port.send({
      type: "request",
      id: 5,
      name: "run",
      params: { model: loaded.result.model, prompt: PROMPT },
    });
    expect(await port.answer(5)).toMatchObject({ type: "result" });
    port.send({ type: "request", id: 6, name: "__proto__", params: {} });
    expect(await port.answer(6)).toMatchObject({ type: "error", error: { fields: { code: "message" } } });
  });

  test("a signal that is aborted already asks nothing", async () => {
    await expect(session.models({ signal: AbortSignal.abort(new Error("before")) })).rejects.toThrow(
      "before",
    );
  });

  test("a load that everybody gave up leaves nothing on the device", async () => {
    const device = await testDevice();
    const before = device.memory.liveBytes;
    const other = await connect(host);
    const controller = new AbortController();
    const loading = other.load(
      { ref: LLAMA, quantise: "int4" },
      { signal: controller.signal, onProgress: () => controller.abort() },
    );
    await expect(loading).rejects.toMatchObject({ name: "AbortError" });
    const { model: again } = await other.load({ ref: LLAMA, quantise: "nf4" });
    await other.unload({ model: again });
    expect(device.memory.liveBytes).toBe(before);
    other.close();
  });
});

describe("what is kept", () => {
  test("goes with the client: the device is as it was", async () => {
    const device = await testDevice();
    const before = device.memory.liveBytes;
    for (let i = 0; i < 5; i++) {
      const { client, host: end } = inProcess();
      const gone = host.attach(end);
      const other = await SessionClient.open(client);
      const { model: own } = await other.load({ ref: LLAMA });
      await other.record({ model: own, prompt: PROMPT });
      await other.makeVector({ model: own, recipe: { prompts: [PROMPT] } });
      const waiting = [
        other.generate({ model: own, ...LONG }),
        other.record({ model: own, prompt: PROMPT }),
        other.lens({ model: own, prompt: PROMPT }),
      ].map((request) => request.catch((error) => error));
      other.close();
      for (const error of await Promise.all(waiting)) expect(error).toMatchObject({ code: "closed" });
      await gone;
      expect(device.memory.liveBytes).toBe(before);
    }
  });

  test("is bounded, and so is what waits", async () => {
    const small = testHost({ bounds: { handles: 3, waiting: 2, picturePixels: 100 } });
    const client = await connect(small);
    const { model: own } = await client.load({ ref: LLAMA });
    const { prompt } = await client.encode({ model: own, prompt: PROMPT });
    await client.encode({ model: own, prompt: PROMPT });
    await expect(client.encode({ model: own, prompt: PROMPT })).rejects.toMatchObject({ code: "bounds" });
    await client.free([prompt]);
    await client.encode({ model: own, prompt: PROMPT });
    const many = Array.from({ length: 4 }, () =>
      client.run({ model: own, prompt: PROMPT }).catch((e) => e.code),
    );
    const codes = (await Promise.all(many)).filter((each) => typeof each === "string");
    expect(codes).toEqual(["bounds", "bounds"]);
    const image = { width: 11, height: 10, data: new Uint8Array(330) };
    await expect(client.picture({ image })).rejects.toMatchObject({ name: "ImageError" });
    client.close();
    await small.close();
  });

  test("unpacked pictures count, those that several prompts have once", async () => {
    const small = testHost({ bounds: { pictureBytes: 1000 } });
    const client = await connect(small);
    const image = { width: 10, height: 20, data: new Uint8Array(600) };
    const { picture } = await client.picture({ image });
    await expect(client.picture({ image })).rejects.toMatchObject({
      code: "bounds",
      message: expect.stringContaining("1200"),
    });
    await client.free([picture]);
    const again = await client.picture({ image });
    await client.free([again.picture]);
    client.close();
    await small.close();
  });

  test("one client's handles are nobody else's", async () => {
    const other = await connect(host);
    await expect(other.run({ model, prompt: PROMPT })).rejects.toMatchObject({ code: "handle" });
    await expect(other.free([model])).rejects.toMatchObject({ code: "handle" });
    other.close();
  });

  test("a host that lends some models refuses others, and files", async () => {
    const lending = testHost({
      offer: { models: [{ ref: LLAMA, label: "l" }], anyRef: false, files: false },
    });
    const client = await connect(lending);
    const refused = { name: "SessionError", code: "refused" };
    await expect(client.load({ ref: "test/fixtures/gpt2/model" })).rejects.toMatchObject(refused);
    await expect(client.load({ ref: LLAMA, base: "/etc" })).rejects.toMatchObject(refused);
    await expect(client.load({ ref: LLAMA, adapters: ["https://example.org/x"] })).rejects.toMatchObject(
      refused,
    );
    await expect(client.load({ files: {}, name: "dropped" })).rejects.toMatchObject(refused);
    const { model: own } = await client.load({ ref: LLAMA });
    const stranger = { name: "own", items: [{ input: "a", outputs: ["b"], image: "/etc/hostname" }] };
    await expect(
      client.encode({ model: own, prompt: { task: stranger as never, input: "a", asked: "image" } }),
    ).rejects.toMatchObject({ code: "handle" });
    await lending.close();
  });
});

test("whatever a request has in place of what it should, the answer is one of the library's own errors, or none", async () => {
  const unexpected: unknown[] = [];
  const lending = testHost({
    onUnexpected: (error) => unexpected.push(error),
    offer: { models: [{ ref: LLAMA, label: "l" }], anyRef: false, files: false },
  });
  const client = await connect(lending);
  const { model: m } = await client.load({ ref: LLAMA });
  const { recording } = await client.record({ model: m, prompt: PROMPT });
  const { vector } = await client.makeVector({ model: m, recipe: { prompts: [PROMPT] } });
  const edit = {
    operation: "add",
    site: "resid_post.0",
    at: [1, 2],
    value: { vector, layer: 0 },
    amount: 2,
    head: 1,
  };
  const task = {
    name: "own",
    instruction: "Do:",
    items: [
      { input: "a", outputs: ["b"], split: "train" },
      { input: "c", outputs: ["d"], split: "train" },
    ],
  };
  const specify = { kind: "text", count: 1, seed: 0, template: "Q: {x}\nA: {y}\n\n" };
  const data = Float32Array.of(1, 2, 3, 4);
  const requests: [name: string, params: unknown][] = [
    [
      "encode",
      {
        model: m,
        prompt: { parts: ["a", { text: "b", name: "n" }, { image: data }], bos: true },
        views: true,
      },
    ],
    ["encode", { model: m, prompt: { chat: [{ role: "user", content: [{ type: "text", text: "x" }] }] } }],
    ["encode", { model: m, prompt: { ids: [5, 6], images: [], answer: [] } }],
    ["encode", { model: m, prompt: { question: "a", examples: [{ question: "b", answer: "c" }] } }],
    ["encode", { model: m, prompt: { task, input: "a", asked: "text", specify } }],
    ["picture", { image: { width: 1, height: 1, data: Uint8Array.of(1, 2, 3) } }],
    [
      "run",
      {
        model: m,
        prompt: PROMPT,
        edits: [edit],
        taps: { a: { site: "resid_post.*", at: { start: 0, end: 2 } } },
        top: 2,
        track: [5],
      },
    ],
    ["record", { model: m, prompt: PROMPT, edits: [edit] }],
    ["resume", { recording, variants: [[edit]], track: [1] }],
    ["layers", { recording, edit: { ...edit, site: "resid_post" }, edits: [edit], layers: [0, 1] }],
    [
      "generate",
      {
        model: m,
        prompt: PROMPT,
        maxNewTokens: 1,
        edits: [edit],
        temperature: 1,
        topK: 2,
        topP: 0.5,
        seed: 1,
        stopIds: [1],
      },
    ],
    ["lens", { model: m, prompt: PROMPT, site: "resid_post", at: [0], layers: [0], k: 1, edits: [edit] }],
    ["reach", { model: m, prompt: PROMPT, edits: [edit] }],
    ["attention", { model: m, prompt: PROMPT, at: -1, span: "image", layers: [0], heads: "each" }],
    ["vector.make", { model: m, recipe: { task, specify, split: "train", items: 1, site: "resid_post" } }],
    [
      "vector.make",
      { model: m, recipe: { prompt: PROMPT, site: "resid_post.0", at: -1, head: 0, edits: [edit] } },
    ],
    [
      "vector.mix",
      {
        vectors: [
          { vector, weight: 0.5 },
          { vector, weight: 2 },
        ],
      },
    ],
    ["vector.load", { model: m, bytes: Uint8Array.of(1, 2), name: "x" }],
    ["project", { points: { shape: [2, 2], data }, method: "pca", seed: 1 }],
    [
      "project",
      {
        points: [
          { vector, layer: 0 },
          { vector, layer: 1 },
        ],
        method: "tsne",
      },
    ],
    ["activations", { model: m, prompts: [PROMPT], site: "resid_post.0", at: -1 }],
    [
      "sweep",
      {
        model: m,
        vector,
        task,
        split: "train",
        asked: "text",
        items: 1,
        layers: [0],
        specify,
        template: "Q: {x}\nA: {y}\n",
      },
    ],
    ["task.picture", { task: "food-type", input: "x" }],
    ["load", { ref: LLAMA, quantise: { linear: "int8", modules: { a: "nf4" } }, adapters: [], base: LLAMA }],
  ];
  const wrong = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.double(),
    fc.constant(undefined),
    fc.uint8Array({ maxLength: 9 }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.nat(),
      fc.array(fc.nat(), { minLength: 1, maxLength: 6 }),
      wrong,
      async (which, path, value) => {
        const [name, params] = requests[which % requests.length]!;
        const made = await client
          .request(name as never, replaced(params, path, value) as never)
          .catch((error) => error);
        if (made instanceof Error) return;
        const handles = Object.values(made as object).filter((each) =>
          /^(prompt|picture|recording|vector):/.test(String(each)),
        );
        await client.free(handles.filter((handle) => handle !== recording && handle !== vector));
      },
    ),
    { numRuns: 1000 },
  );
  expect(unexpected).toEqual([]);
  expect(await client.run({ model: m, prompt: PROMPT, top: 1 })).toMatchObject({ top: [{}] });
  await lending.close();
});

/** A copy with another value where the path leads to. */
function replaced(value: unknown, [step, ...rest]: readonly number[], by: unknown): unknown {
  if (step === undefined || typeof value !== "object" || value === null || ArrayBuffer.isView(value))
    return by;
  const keys = Object.keys(value);
  const key = keys[step % Math.max(1, keys.length)];
  const copy: Record<string, unknown> = Array.isArray(value) ? ([...value] as never) : { ...value };
  if (key !== undefined) copy[key] = replaced(copy[key], rest, by);
  return copy;
}

test("200 patches leave the device's memory as it is after the first", async () => {
  const device = await testDevice();
  const { recording } = await session.record({ model, prompt: PROMPT });
  const { vector } = await session.makeVector({
    model,
    recipe: { prompt: PROMPT, site: "resid_post.0", at: -1 },
  });
  const patch = (i: number) =>
    session.resume({
      recording,
      variants: [
        [{ operation: "interpolate", site: "resid_post.0", at: -1, value: { vector }, amount: i / 200 }],
      ],
    });
  await patch(0);
  const before = device.memory.liveBytes;
  for (let i = 1; i <= 200; i++) await patch(i);
  expect(device.memory.liveBytes).toBe(before);
  await session.free([recording, vector]);
});

test("after its device is lost, a host says so, and loads anew on another", async () => {
  const own = new SessionHost({ name: "xpatch test", place: "process" });
  const client = await connect(own);
  const { model: lost } = await client.load({ ref: LLAMA });
  await (await own.device()).destroy();
  await expect(client.run({ model: lost, prompt: PROMPT })).rejects.toBeInstanceOf(errors.DeviceLostError);
  const { model: again } = await client.load({ ref: LLAMA });
  expect(await client.run({ model: again, prompt: PROMPT, top: 1 })).toMatchObject({ top: [{}] });
  await client.unload({ model: lost });
  await own.close();
});

describe("errors on the wire", () => {
  test("every class comes back as itself, with its fields and causes", () => {
    for (const [name, type] of Object.entries(errors)) {
      const made =
        type === errors.SessionError
          ? new errors.SessionError("words", { code: "bounds", cause: new Error("why") })
          : new (type as typeof errors.XpatchError)("words", { cause: new Error("why") });
      const back = decodeError(structuredClone(encodeError(made)));
      expect(back).toBeInstanceOf(type);
      expect(back).toMatchObject({ name, message: "words" });
      expect((back.cause as Error).message).toBe("Error: why");
      if (back instanceof errors.SessionError) expect(back.code).toBe("bounds");
    }
    expect(decodeError(encodeError(new RangeError("far")))).toMatchObject({
      name: "RangeError",
      message: "far",
    });
    expect(encodeError("text")).toEqual({ name: "Error", message: "text" });
    expect(JSON.stringify(encodeError(new Error("x")))).not.toContain(".ts:");
  });
});

describe("chores", () => {
  const PIXELS = { width: 1024, height: 768, data: new Uint8Array(3 * 1024 * 768).map((_, i) => i % 251) };
  const parts = (data: Uint8Array) => ({ parts: ["Q:", { image: { ...PIXELS, data } }, "A:"] });

  test("large pictures are prepared by others, with the same numbers; small ones are not sent", async () => {
    const done: string[] = [];
    const noted = Object.fromEntries(
      Object.entries(OWN_CHORES).map(([name, chore]) => [
        name,
        (...args: unknown[]) => {
          done.push(name);
          // As over to a thread: what comes back is another object.
          return (chore as (...all: unknown[]) => Promise<unknown>)(...structuredClone(args)).then(
            structuredClone,
          );
        },
      ]),
    ) as unknown as Chores;
    const other = testHost({ chores: noted });
    const [own, by] = [await connect(host), await connect(other)];
    const answers = [];
    for (const client of [own, by]) {
      const { model: llava } = await client.load({ ref: LLAVA });
      const { prompt, pictures } = await client.encode({
        model: llava,
        prompt: parts(Uint8Array.from(PIXELS.data)),
        views: true,
      });
      const { top } = await client.run({ model: llava, prompt });
      answers.push({ pictures, top });
      const task = { task: "country-capital", input: "Italy", asked: "image" } as const;
      await client.encode({ model: llava, prompt: task, views: true });
    }
    expect(answers[1]).toEqual(answers[0]);
    expect(done).toEqual(["pixels", "view"]);
    own.close();
    await other.close();
  });

  test("while a picture is prepared for one client, the others are answered", async () => {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let begun = () => {};
    const waits = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const chores: Chores = {
      ...OWN_CHORES,
      async pixels(...args) {
        begun();
        await held;
        return OWN_CHORES.pixels(...args);
      },
    };
    const other = testHost({ chores });
    const [one, two] = [await connect(other), await connect(other)];
    const { model: llava } = await one.load({ ref: LLAVA });
    const encoding = one.encode({ model: llava, prompt: parts(PIXELS.data) });
    await waits;
    const { model: llama } = await two.load({ ref: LLAMA });
    expect((await two.run({ model: llama, prompt: PROMPT })).top).toHaveLength(10);
    release();
    expect((await encoding).pictures).toHaveLength(1);
    await other.close();
  });
});

test("bytes of what waits are bounded, whatever the number of requests", async () => {
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const chores: Chores = { ...OWN_CHORES, decode: (...args) => held.then(() => OWN_CHORES.decode(...args)) };
  const other = testHost({ chores, bounds: { messageBytes: 1000 } });
  const client = await connect(other);
  const asks = Array.from({ length: 5 }, () => client.picture({ image: new Uint8Array(1000) }));
  await expect(asks[4]).rejects.toThrow("expected requests of at most 4000 bytes at a time");
  release();
  // No pictures, but room again for what is asked next.
  for (const ask of asks.slice(0, 4)) await expect(ask).rejects.toThrow(errors.ImageError);
  await expect(client.picture({ image: new Uint8Array(1000) })).rejects.toThrow(errors.ImageError);
  await other.close();
});
