import { readdirSync } from "node:fs";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { extractTaskVectors } from "../../src/analysis/vectors/task-vectors.ts";
import { readTask } from "../../src/cli/options/task-file.ts";
import { PromptError, XpatchError } from "../../src/errors.ts";
import { loadImage } from "../../src/images/files/load.ts";
import { preprocess } from "../../src/images/preprocess.ts";
import { resize } from "../../src/images/resize.ts";
import type { Tokenizer } from "../../src/model/prompt/tokenizer.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { isCorrect, isCorrectTokens, isWholeAnswer } from "../../src/tasks/correct.ts";
import {
  atLastExample,
  drawExamples,
  drawItems,
  exampleOf,
  fewShotPrompt,
  instructedPrompt,
  PAPER_TEMPLATE,
  SPACED_TEMPLATE,
} from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { majorityBaseline, scoreAnswers, scoreTokens } from "../../src/tasks/score.ts";
import {
  itemsOf,
  type PicturedItem,
  parseTask,
  picturedItemsOf,
  SPLITS,
  splitOf,
  type TaskItem,
} from "../../src/tasks/task.ts";
import { expectClose } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { tokenizerOf } from "../helpers/tokenizers.ts";

const folder = new URL("../../tasks/", import.meta.url);
const names = readdirSync(folder)
  .filter((file) => file.endsWith(".json"))
  .map((file) => file.replace(".json", ""));
const fixture = (name: string) => `${import.meta.dirname}/../fixtures/${name}/model`;

function item(input: string, ...outputs: string[]): TaskItem {
  return { input, outputs, split: "test" };
}

describe("task files", () => {
  const parse = (json: unknown) => parseTask(JSON.stringify(json), "colors.json");

  test("fields, synonyms, and splits by rule where none is given", () => {
    const task = parse({
      name: "colors",
      instruction: "The color of the thing:",
      items: [
        { input: "Sky", output: "blue", split: "train", image: "sky.png", emoji: "1f30c" },
        { input: "Salmon", output: ["pink", "orange"] },
      ],
    });
    expect(task).toEqual({
      name: "colors",
      instruction: "The color of the thing:",
      items: [
        { input: "Sky", outputs: ["blue"], split: "train", image: "sky.png", emoji: "1f30c" },
        { input: "Salmon", outputs: ["pink", "orange"], split: splitOf("Salmon") },
      ],
    });
  });

  test("a description, and a question of its own with its answers", () => {
    const { items } = parse({
      name: "colors",
      items: [
        { input: "Sky", output: "blue", text: "Above us.", question: "How high?", answer: ["very", "high"] },
        { input: "Sea", output: "gray", question: "How deep?", answer: "very" },
      ],
    });
    expect(items[0]).toMatchObject({ text: "Above us.", question: "How high?", answers: ["very", "high"] });
    expect(items[1]).toMatchObject({ question: "How deep?", answers: ["very"] });
    expect(items[1]).not.toHaveProperty("text");
  });

  test.each([
    ["colors.json", "sky.png", "sky.png"],
    ["my tasks/colors.json", "../sky.png", "my tasks/../sky.png"],
    ["C:\\tasks\\colors.json", "pictures/sky.png", "C:\\tasks\\pictures/sky.png"],
    ["tasks/colors.json", "/pictures/sky.png", "/pictures/sky.png"],
    ["tasks/colors.json", "D:\\sky.png", "D:\\sky.png"],
    ["tasks/colors.json", "https://example.org/sky.png", "https://example.org/sky.png"],
    ["https://example.org/tasks/colors.json?v=1", "sky.png", "https://example.org/tasks/sky.png"],
    ["https://example.org/tasks/colors.json", "/sky.png", "https://example.org/sky.png"],
  ])("a picture is found from the file: %s, %s", (where, image, address) => {
    const json = JSON.stringify({ name: "colors", items: [{ input: "Sky", output: "blue", image }] });
    expect(parseTask(json, where).items[0]!.image).toBe(address);
  });

  const good = { input: "Sky", output: "blue" };
  const file = (items: unknown) => ({ name: "colors", items });
  test.each<[string, unknown, RegExp]>([
    ["a list", [], /colors\.json: expected an object, found \[\]/],
    ["no name", { items: [good] }, /expected name to be some text, found nothing/],
    ["no items", file([]), /expected items to be a list of items, found \[\]/],
    ["an item that is text", file(["Sky"]), /items\[0\]: expected an object, found "Sky"/],
    ["a blank input", file([good, { ...good, input: " " }]), /items\[1\]: expected input .*found " "/],
    ["no output", file([{ input: "Sky" }]), /items\[0\]: expected output .*found nothing/],
    ["an empty list of outputs", file([{ ...good, output: [] }]), /items\[0\]: expected output .*\[\]/],
    ["a number among outputs", file([{ ...good, output: ["a", 3] }]), /items\[0\]: expected output .*3/],
    ["an unknown split", file([{ ...good, split: "dev" }]), /split to be one of train, .*found "dev"/],
    ["a misspelt field", file([{ ...good, colour: 1 }]), /items\[0\]: expected the fields .*found "colour"/],
    ["an image that is no path", file([{ ...good, image: 3 }]), /items\[0\]: expected image .*found 3/],
    ["a blank text", file([{ ...good, text: " " }]), /items\[0\]: expected text to be some text, found " "/],
    ["a question alone", file([{ ...good, question: "?" }]), /question to come with answer, found it alone/],
    ["an answer alone", file([{ ...good, answer: "a" }]), /answer to come with question, found it alone/],
    [
      "a blank answer",
      file([{ ...good, question: "?", answer: [" "] }]),
      /items\[0\]: expected answer to be some text, or a list of such, found \[" "\]/,
    ],
    ["an input twice", file([good, good]), /expected each input once, found "Sky" twice/],
  ])("%s is refused", (_, json, message) => {
    expect(() => parse(json)).toThrow(XpatchError);
    expect(() => parse(json)).toThrow(message);
  });

  test("what is no JSON is refused with the file's name", () => {
    expect(() => parseTask("{", "colors.json")).toThrow(/^colors\.json: expected JSON/);
  });

  test("a split without items is refused", () => {
    const task = parse({ name: "colors", items: [{ ...good, split: "train" }] });
    expect(itemsOf(task, "train")).toHaveLength(1);
    expect(() => itemsOf(task, "test")).toThrow(/colors: no item is in the test split/);
  });

  test("a split without pictures is refused", () => {
    const task = parse({
      name: "colors",
      items: [
        { ...good, split: "train", image: "sky.png" },
        { ...good, input: "Sea", split: "train" },
        { ...good, input: "Ink", split: "test" },
      ],
    });
    expect(picturedItemsOf(task, "train").map(({ image }) => image)).toEqual(["sky.png"]);
    expect(() => picturedItemsOf(task, "test")).toThrow(/colors: no item of the test split has an image/);
    expect(() => picturedItemsOf(task, "validation")).toThrow(/no item is in the validation split/);
  });

  test("a task that does not exist is refused with those that do", async () => {
    await expect(readTask("country-capitals")).rejects.toThrow(
      /no task "country-capitals".*country-capital,/,
    );
  });
});

describe("splits", () => {
  test("are where they have always been", () => {
    expect(["Greece", "Italy", "Horse", "Carrot", "São Tomé and Príncipe"].map(splitOf)).toEqual([
      "train",
      "train",
      "validation",
      "train",
      "validation",
    ]);
  });

  test("are 40, 30 and 30 % of all inputs", () => {
    const found = Array.from({ length: 10_000 }, (_, i) => splitOf(`item ${i}`));
    const share = (split: string) => found.filter((name) => name === split).length / found.length;
    expect(share("train")).toBeCloseTo(0.4, 1.5);
    expect(share("validation")).toBeCloseTo(0.3, 1.5);
    expect(share("test")).toBeCloseTo(0.3, 1.5);
  });
});

describe("the tasks that come with xpatch", () => {
  test("are the six of the paper and four balanced ones", () => {
    expect(names.sort()).toEqual(
      [
        ...[
          "country-capital",
          "country-currency",
          "animal-latin",
          "animal-young",
          "food-color",
          "food-flavor",
        ],
        ...["country-continent", "country-language", "animal-class", "food-type"],
      ].sort(),
    );
  });

  test.each(names)("%s", async (name) => {
    const task = await readTask(name);
    expect(task.name).toBe(name);
    expect(task.instruction).toMatch(/:$/);
    expect(task.source && task.license).toBeTruthy();
    expect(task.items.length).toBeGreaterThanOrEqual(/capital|currency/.test(name) ? 100 : 60);

    // The same thing is in the same split in every task, so nothing of a test item is seen elsewhere.
    for (const { input, split } of task.items) expect(split, input).toBe(splitOf(input));
    for (const split of SPLITS) expect(itemsOf(task, split).length).toBeGreaterThanOrEqual(20);

    // Repeating the question must not count as answering it, nor one answer for a quarter of all questions.
    for (const { input, outputs } of task.items) expect(isCorrect(input, outputs), input).toBe(false);
    expect(majorityBaseline(task.items)).toBeLessThanOrEqual(0.25);

    for (const { input, outputs } of task.items) {
      for (const text of [input, ...outputs]) expect(text).toBe(text.normalize("NFC").trim());
      expect(new Set(outputs).size).toBe(outputs.length);
    }
    const emoji = task.items.flatMap((it) => it.emoji ?? []);
    for (const code of emoji) expect(code).toMatch(/^[0-9a-f]{4,5}(-[0-9a-f]{4,5})*$/);
    expect(new Set(emoji).size).toBe(emoji.length);
  });

  test("describe countries without what is asked for, in the same words in each task", async () => {
    const texts = new Map<string, string>();
    for (const name of ["country-capital", "country-currency"]) {
      const described = (await readTask(name)).items.filter(({ text }) => text !== undefined);
      expect(described.length).toBeGreaterThan(30);
      for (const { input, outputs, split, image, text } of described) {
        expect([split, typeof image], input).toEqual(["test", "string"]);
        for (const word of [input, ...outputs]) {
          expect(new RegExp(`(?<!\\p{L})${word}(?!\\p{L})`, "iu").test(text!), `${input}: ${word}`).toBe(
            false,
          );
        }
        expect(text!.split(". ").length, input).toBeGreaterThanOrEqual(input === "South Sudan" ? 1 : 2);
        expect(texts.get(input) ?? text).toBe(text);
        texts.set(input, text!);
      }
    }
  });

  test("have the flags of the countries that they name", async () => {
    const regions = new Intl.DisplayNames(["en"], { type: "region" });
    const { items } = await readTask("country-capital");
    const named = items.filter(({ input, emoji }) => {
      const letters = emoji!
        .split("-")
        .map((code) => String.fromCharCode(Number.parseInt(code, 16) - 0x1f1e6 + 65));
      return regions.of(letters.join("")) === input;
    });
    // CLDR writes some names differently: "Czechia", "Côte d’Ivoire", "St. Lucia"…
    expect(named.length).toBeGreaterThan(0.9 * items.length);
  });
});

describe("examples", () => {
  const pool = Array.from({ length: 12 }, (_, i) => item(`x${i}`, `y${i}`, "other"));

  test("are drawn from the other items, each once, with their first output", () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(11), fc.nat(11), (seed, index, count) => {
        const query = pool[index]!;
        const drawn = drawExamples(pool, query, { seed, count });
        expect(drawn).toHaveLength(count);
        expect(new Set(drawn.map(({ question }) => question)).size).toBe(count);
        for (const { question, answer } of drawn) {
          expect(question).not.toBe(query.input);
          expect(answer).toBe(`y${String(question).slice(1)}`);
        }
        expect(drawExamples([...pool].reverse(), query, { seed, count })).toEqual(drawn);
        expect(drawItems(pool, query, { seed, count }).map(({ input }) => input)).toEqual(
          drawn.map(({ question }) => question),
        );
      }),
    );
  });

  test("change with the seed and the query, and all come up equally often", () => {
    const counts = new Map<unknown, number>();
    for (let seed = 0; seed < 2000; seed++) {
      const [first] = drawExamples(pool, pool[0]!, { seed, count: 1 });
      counts.set(first!.question, (counts.get(first!.question) ?? 0) + 1);
    }
    expect(counts.size).toBe(11);
    // 2000 / 11 each; five standard deviations either way.
    for (const count of counts.values()) expect(Math.abs(count - 181.8)).toBeLessThan(65);
    const inputs = pool.slice(1).map((query) => drawExamples(pool, query, { count: 1 })[0]!.question);
    expect(new Set(inputs).size).toBeGreaterThan(3);
  });

  test("a pool that is too small is refused", () => {
    expect(() => drawExamples(pool.slice(0, 5), pool[0]!)).toThrow(/at least 5 items besides "x0", found 4/);
    expect(drawExamples(pool.slice(0, 5), pool[9]!)).toHaveLength(5);
  });
});

describe("few-shot prompts", () => {
  let model: PatchableModel;
  const shots = [
    { question: "Greece", answer: "Athens" },
    { question: "Spain", answer: "Madrid" },
    { question: "Egypt", answer: "Cairo" },
  ];

  beforeAll(async () => {
    model = await loadModel(fixture("llama"), { device: await testDevice() });
    return () => model.dispose();
  });

  test.each([
    [
      "spaced",
      SPACED_TEMPLATE,
      "Q: Greece\nA: Athens\n\nQ: Spain\nA: Madrid\n\nQ: Egypt\nA: Cairo\n\nQ: Italy\nA:",
    ],
    [
      "the paper's",
      PAPER_TEMPLATE,
      "Q:Greece\nA:Athens\n\nQ:Spain\nA:Madrid\n\nQ:Egypt\nA:Cairo\n\nQ:Italy\nA:",
    ],
    ["one's own", "{x} -> {y}; ", "Greece -> Athens; Spain -> Madrid; Egypt -> Cairo; Italy ->"],
  ])("%s template", (_, template, text) => {
    expect(fewShotPrompt(model, shots, "Italy", template).text).toBe(text);
    expect(fewShotPrompt(model, [], "Italy", template).text).toBe(
      text
        .slice(text.indexOf("Cairo") + 5)
        .trim()
        .replace(/^; /, ""),
    );
  });

  test.each([SPACED_TEMPLATE, PAPER_TEMPLATE])(
    "the vector is read at the third colon from the end: %j",
    (template) => {
      const prompt = fewShotPrompt(model, shots, "Italy", template);
      const colons = [...prompt.tokens.keys()].filter((i) => prompt.tokens[i]!.endsWith(":"));
      expect(atLastExample(prompt)).toBe(colons.at(-3));
      expect(prompt.last).toBe(colons.at(-1));
      expect(prompt.ids).toEqual(model.prompt(prompt.text).ids);
    },
  );

  test("the vector knows neither the last answer nor the query", async () => {
    const read = async (examples: typeof shots, question: string) => {
      const prompt = fewShotPrompt(model, examples, question);
      const { x } = model.run(prompt, { taps: { x: tap("resid_post.2", atLastExample(prompt)) } });
      return [...(await x.read())];
    };
    const changed = (index: number, answer: string) => shots.with(index, { ...shots[index]!, answer });
    const vector = await read(shots, "Italy");
    expect(await read(changed(2, "Paris"), "France")).toEqual(vector);
    expect(await read(changed(1, "Paris"), "Italy")).not.toEqual(vector);
  });

  test("task vectors of prompts of different lengths are the mean of what each has there", async () => {
    const prompts = [fewShotPrompt(model, shots, "Italy"), fewShotPrompt(model, shots.slice(1), "Sri Lanka")];
    using vectors = extractTaskVectors(model, prompts, { at: atLastExample });
    const each = await Promise.all(
      prompts.map((prompt) =>
        model.run(prompt, { taps: { x: tap("resid_post.1", atLastExample(prompt)) } }).x.read(),
      ),
    );
    const found = await vectors.at(1).read();
    const means = [...each[0]!].map((value, i) => (value + each[1]![i]!) / 2);
    expectClose(found, means, { atol: 1e-5, rtol: 1e-5 });
  });

  test.each(["Q: {x}", "A: {y}", "{y} {x}", "Q: {x} {y}", "{x} or {x}: {y}", "{x}: {y} {y}"])(
    "template %j is refused",
    (template) => {
      expect(() => fewShotPrompt(model, [], "Italy", template)).toThrow(PromptError);
    },
  );

  test("a prompt without examples has no such place", () => {
    expect(() => atLastExample(fewShotPrompt(model, [], "Italy"))).toThrow(/no span "example"/);
  });

  test("pictures as questions, without a space before them", async () => {
    using vlm = await loadModel(fixture("llava"), { device: await testDevice() });
    const image = { width: 2, height: 1, data: Uint8Array.of(255, 0, 0, 0, 0, 255) };
    const prompt = fewShotPrompt(vlm, [{ question: image, answer: "red" }, ...shots], image);
    const plain = vlm.prompt(["Q:", image, `\nA: red\n\n${textOf(shots)}Q:`, image, "\nA:"]);
    expect(prompt.ids).toEqual(plain.ids);
    expect(prompt.images).toEqual([image, image]);
    expect(prompt.tokens[atLastExample(prompt)]).toMatch(/:$/);
    expect(atLastExample(prompt)).toBeLessThan(prompt.span("image2").start);
  });

  test("an instruction before the question", () => {
    expect(instructedPrompt(model, "The capital:", "Italy").text).toBe("The capital:\nQ: Italy\nA:");
  });

  test("items become examples by text or by picture", async () => {
    using vlm = await loadModel(fixture("llava"), { device: await testDevice() });
    const pictured = (input: string, image: string): PicturedItem => ({ ...item(input, "seen"), image });
    const images = `${import.meta.dirname}/../fixtures/images`;
    const [photo, again, tall] = [
      pictured("photo", `${images}/photo.png`),
      pictured("the same photo", `${images}/photo.png`),
      pictured("tall", `${images}/tall.png`),
    ];
    const pictures = await loadPictures(vlm, [photo!, again!]);

    const decoded = await loadImage(`${images}/photo.png`);
    expect(pictures(photo!)).toEqual(preprocess(decoded, vlm.config.vision!.processor));
    expect(pictures(again!)).toBe(pictures(photo!));
    const narrow = await loadPictures(vlm, [tall!], { width: 20 });
    const whole = await loadImage(`${images}/tall.png`);
    const height = Math.trunc((20 * whole.height) / whole.width);
    const { processor } = vlm.config.vision!;
    expect(narrow(tall!)).toEqual(preprocess(resize(whole, 20, height, "bicubic"), processor));
    expect(narrow(tall!)).not.toEqual(preprocess(whole, processor));
    expect(exampleOf(photo!)).toEqual({ question: "photo", answer: "seen" });
    expect(exampleOf(photo!, pictures)).toEqual({ question: pictures(photo!), answer: "seen" });
    const prompt = fewShotPrompt(vlm, [exampleOf(photo!, pictures)], "a text");
    expect(prompt.ids).toEqual(vlm.prompt(["Q:", decoded, "\nA: seen\n\nQ: a text\nA:"]).ids);

    expect(() => pictures(tall!)).toThrow(/the picture of "tall", .*tall\.png, is not loaded/);
    expect(() => pictures(item("blind", "x"))).toThrow(/"blind" has no picture/);
    await expect(loadPictures(vlm, [pictured("gone", "gone.png")])).rejects.toThrow(/gone\.png/);
    await expect(loadPictures(model, [photo!])).rejects.toThrow(/llama\) takes no images/);
  });

  const textOf = (examples: typeof shots) =>
    examples.map(({ question, answer }) => `Q: ${question}\nA: ${answer}\n\n`).join("");
});

describe("whole answers", () => {
  test.each<[string, string[], boolean]>([
    ["New Delhi", ["New Delhi"], true],
    [" new  delhi.", ["New Delhi"], true],
    ["“New Delhi”", ["Delhi", "New Delhi"], true],
    ["Washington, D.C.", ["Washington, D.C."], true],
    ["Washington, D.C", ["Washington, D.C."], true],
    ["Saint John's", ["Saint John's"], true],
    ["Bogota\u0301", ["Bogotá"], true],
    ["Bogota", ["Bogotá"], false],
    ["New", ["New Delhi"], false],
    ["New Delhi, India", ["New Delhi"], false],
    ["New Delhi is", ["New Delhi"], false],
    ["", ["New Delhi"], false],
    [".", ["New Delhi"], false],
  ])("%j, where %j is right: %s", (answer, outputs, right) => {
    expect(isWholeAnswer(answer, outputs)).toBe(right);
  });

  test("case counts on request", () => {
    expect(isWholeAnswer("euro", ["Euro"], { ignoreCase: false })).toBe(false);
    expect(isWholeAnswer("Euro.", ["Euro"], { ignoreCase: false })).toBe(true);
  });
});

describe("scoring", () => {
  test.each<[string, string[], boolean]>([
    [" Athens", ["Athens"], true],
    [" Ath", ["Athens"], true],
    ["Athens is the capital", ["Athens"], true],
    ["athens", ["Athens"], true],
    ["Delhi", ["New Delhi", "Delhi"], true],
    ["Brasi\u0301lia", ["Brasília"], true],
    ["Sparta", ["Athens"], false],
    ["the Athens", ["Athens"], false],
    ["", ["Athens"], false],
    [" \n", ["Athens"], false],
  ])("%j for %j: %s", (answer, outputs, right) => {
    expect(isCorrect(answer, outputs)).toBe(right);
  });

  test("case counts on request", () => {
    expect(isCorrect("athens", ["Athens"], { ignoreCase: false })).toBe(false);
    expect(isCorrect("Ath", ["Athens"], { ignoreCase: false })).toBe(true);
  });

  const KINDS = [
    "byte-gpt2",
    "byte-smol",
    "byte-llama3",
    "byte-qwen2",
    "spm-bpe",
    "spm-gemma",
    "spm-unigram",
  ];
  const OUTPUTS = ["Łódź", "été", "日本", "İzmir", "Athens", "New Delhi", "42"];
  /** The tokens of a text behind other text. */
  const behind = (tokenizer: Tokenizer, text: string) => {
    const before = tokenizer.encode("A:", { specials: false });
    const all = tokenizer.encode(`A:${text}`, { specials: false });
    expect(all.slice(0, before.length)).toEqual(before);
    return all.slice(before.length);
  };

  test.each(KINDS)("%s: every beginning of the right tokens is right, and of no other output", (kind) => {
    const tokenizer = tokenizerOf(kind);
    for (const output of OUTPUTS) {
      for (const text of [output, ` ${output}`, output.toLowerCase()]) {
        const ids = behind(tokenizer, text);
        for (const count of ids.keys()) {
          const given = ids.slice(0, count + 1);
          expect(isCorrectTokens(tokenizer, given, [output]), `${text} ${count}`).toBe(true);
          const others = OUTPUTS.filter((other) => other !== output);
          const blank = tokenizer.decode(given).trim() === "";
          if (!blank) expect(others.some((other) => isCorrectTokens(tokenizer, given, [other]))).toBe(false);
        }
      }
    }
  });

  test("bytes of a character count only for a character that has them", () => {
    const tokenizer = tokenizerOf("byte-gpt2");
    const byte = (token: string) => [tokenizer.idOf(token)!];
    // Å is byte C5, Ã is C3, æ is E6, Ĥ is 82, ģ is 81.
    expect(isCorrectTokens(tokenizer, byte("Å"), ["Łódź"])).toBe(true);
    expect(isCorrectTokens(tokenizer, byte("Ã"), ["Łódź"])).toBe(false);
    expect(isCorrectTokens(tokenizer, byte("Ã"), ["Ostrava", "été"])).toBe(true);
    expect(isCorrectTokens(tokenizer, byte("æ"), ["日本"])).toBe(true);
    expect(isCorrectTokens(tokenizer, byte("ģ"), ["Łódź"])).toBe(false);
    const small = [...byte("Å"), ...byte("Ĥ")];
    expect(isCorrectTokens(tokenizer, small, ["Łódź"])).toBe(true);
    expect(isCorrectTokens(tokenizer, small, ["Łódź"], { ignoreCase: false })).toBe(false);
    // An accent by itself: é as e and U+0301, CC 81.
    const accent = [...byte("e"), ...byte("Ì")];
    expect(isCorrectTokens(tokenizer, accent, ["éa"])).toBe(true);
    expect(isCorrectTokens(tokenizer, accent, ["ea"])).toBe(false);
    const beyond = [...tokenizer.encode("Athens, "), ...byte("Å")];
    expect(isCorrectTokens(tokenizer, beyond, ["Athens"])).toBe(true);
    expect(isCorrectTokens(tokenizer, beyond, ["Athens, Greece"])).toBe(false);
  });

  test("a blank is right where the output begins with that token", () => {
    const tokenizer = tokenizerOf("byte-gpt2");
    const blank = behind(tokenizer, " 日本").slice(0, 1);
    expect(tokenizer.tokenOf(blank[0]!)).toBe("Ġ");
    expect(isCorrectTokens(tokenizer, blank, ["日本"])).toBe(true);
    const merged = behind(tokenizer, " the");
    expect(tokenizer.tokenOf(merged[0]!)).not.toBe("Ġ");
    expect(isCorrectTokens(tokenizer, blank, ["the"])).toBe(false);
    expect(isCorrectTokens(tokenizer, [tokenizer.idOf("Ċ")!], ["日本"])).toBe(false);
    expect(isCorrectTokens(tokenizer, [], ["日本"])).toBe(false);
  });

  test("tokens are scored by their bytes, beside the best constant token", () => {
    const tokenizer = tokenizerOf("byte-gpt2");
    const [l, e, j] = ["Å", "Ã", "æ"].map((token) => tokenizer.idOf(token)!) as [number, number, number];
    const items = [item("a", "Łódź"), item("b", "été"), item("c", "日本"), item("d", "ébène")];
    expect(scoreTokens(tokenizer, items, [l, e, e, l])).toEqual({
      correct: 2,
      total: 4,
      accuracy: 0.5,
      distinct: 2,
      majority: 0.25,
      constant: 0.5,
      answers: ["\ufffd", "\ufffd", "\ufffd", "\ufffd"],
    });
    expect(scoreTokens(tokenizer, items, [l, e, j, e]).accuracy).toBe(1);
    expect(() => scoreTokens(tokenizer, items, [l])).toThrow(/found 1 for 4/);
    const capital = tokenizer.encode(" capital", { specials: false });
    const named = [item("e", "Capital"), item("f", "capital")];
    const given = [capital[0]!, capital[0]!];
    expect(scoreTokens(tokenizer, named, given)).toMatchObject({ correct: 2, majority: 1, constant: 1 });
    const strict = { correct: 1, majority: 0.5, constant: 0.5 };
    expect(scoreTokens(tokenizer, named, given, { ignoreCase: false })).toMatchObject(strict);
  });

  test("counts, distinct answers and constant answers", () => {
    const items = [
      item("a", "red"),
      item("b", "red", "pink"),
      item("c", "blue"),
      item("d", "dark blue"),
      item("e", "red"),
    ];
    expect(scoreAnswers(items, ["red", " Pink", "red", "dark", "  RED"])).toEqual({
      correct: 4,
      total: 5,
      accuracy: 0.8,
      distinct: 3,
      majority: 0.6,
      constant: 0.6,
    });
  });

  test("a constant that is the beginning of many outputs shows", () => {
    const items = [item("a", "Berlin"), item("b", "Beirut"), item("c", "Bern"), item("d", "Rome")];
    expect(scoreAnswers(items, ["B", "B", "B", "B"])).toMatchObject({
      correct: 3,
      distinct: 1,
      majority: 0.25,
      constant: 0.75,
    });
  });

  test("the most frequent output may be the first word of several", () => {
    expect(
      majorityBaseline([item("a", "Panthera leo"), item("b", "Panthera tigris"), item("c", "Puma")]),
    ).toBe(2 / 3);
  });

  test("a list of another length is refused", () => {
    expect(() => scoreAnswers([item("a", "b")], [])).toThrow(/an answer for each item, found 0 for 1/);
    expect(() => scoreAnswers([], [])).toThrow(XpatchError);
  });
});
