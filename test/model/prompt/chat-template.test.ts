import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { PromptError } from "../../../src/errors.ts";
import {
  type ChatMessage,
  chatPrompt,
  type RenderOptions,
  renderChat,
} from "../../../src/model/prompt/chat-template.ts";
import { findChatTemplates, pickChatTemplate } from "../../../src/model/prompt/find-chat-template.ts";
import type { ImageRules } from "../../../src/model/prompt/image-rules.ts";
import { tokenizerOf } from "../../helpers/tokenizers.ts";

const tokenizer = tokenizerOf("spm-bpe", { bos_token: "<s>", eos_token: "</s>" });

/** In the manner of Llama-2 and Mistral: BOS written out, roles that must alternate. */
const INSTRUCT = `{{ bos_token }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' + message.content | trim + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}`;

/** In the manner of ChatML: a default system message, turns of their own, an opening for the answer. */
const CHATML = `{% if messages[0].role != 'system' %}<|im_start|>system
Be brief.<|im_end|>
{% endif %}
{% for m in messages %}
{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}`;

/** In the manner of LLaVA-1.5: content in pieces, images before text, roles in capitals, no BOS. */
const LLAVA = [
  "{% for message in messages %}{{ message['role'].upper() + ': ' }}",
  "{% for piece in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}",
  "{% for piece in message['content'] | selectattr('type', 'equalto', 'text') %}",
  "{% if message['role'] == 'assistant' %}{% generation %}{{ piece['text'] + ' ' }}{% endgeneration %}",
  "{% else %}{{ piece['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}",
  "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
].join("");

const user = (content: string): ChatMessage => ({ role: "user", content });
const assistant = (content: string): ChatMessage => ({ role: "assistant", content });

describe("renderChat", () => {
  it("gives the template the messages and the special tokens", () => {
    const text = renderChat(INSTRUCT, tokenizer, [user(" hi "), assistant("hello"), user("bye")]);
    expect(text).toBe("<s>[INST] hi [/INST] hello</s>[INST] bye [/INST]");
  });

  it("opens the assistant's turn unless told not to", () => {
    const head = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n";
    // As Jinja reads line ends, also inside of strings; those of messages stay (transformers 5.24).
    expect(renderChat(CHATML.replaceAll("\n", "\r\n"), tokenizer, [user("hi\r\nyou")])).toBe(
      `${head.replace("hi", "hi\r\nyou")}<|im_start|>assistant\n`,
    );
    const lines = "  {% if true %}\r\n\tq{% endif %}\r\n{{ 'a\r\nb' }}\rc\r\n";
    expect(renderChat(lines, tokenizer, [user("hi")])).toBe("\tqa\nb\nc");
    expect(renderChat(CHATML, tokenizer, [user("hi")])).toBe(`${head}<|im_start|>assistant\n`);
    expect(renderChat(CHATML, tokenizer, [user("hi")], { addGenerationPrompt: false })).toBe(head);
  });

  it("passes further variables on, which go before the special tokens", () => {
    const options = { variables: { names: ["a", "b"], eos_token: "!" } };
    expect(renderChat("{{ names | length }}{{ eos_token }}", tokenizer, [user("hi")], options)).toBe("2!");
  });

  it("turns a template's own refusal into a PromptError with its words", () => {
    const refused = () => renderChat(INSTRUCT, tokenizer, [assistant("hello")]);
    expect(refused).toThrow(PromptError);
    expect(refused).toThrow("The chat template failed: Roles must alternate user/assistant");
  });

  it.each(["{% if %}", "{{ 'a' ", "{% for m in messages %}"])(
    "refuses a template that does not parse: %s",
    (source) => {
      expect(() => renderChat(source, tokenizer, [user("hi")])).toThrow(PromptError);
    },
  );

  it("gives tools and documents to templates that use them, and refuses to lose them", () => {
    const template = "{{ tools | length }}{% for d in documents %} {{ d.title }}{% endfor %}";
    const given = { tools: [{ name: "add" }], documents: [{ title: "A" }] };
    expect(renderChat(template, tokenizer, [user("hi")], given)).toBe("1 A");
    expect(renderChat(template, tokenizer, [user("hi")], { variables: given })).toBe("1 A");
    const refused = (options: RenderOptions) => () => renderChat(INSTRUCT, tokenizer, [user("hi")], options);
    expect(refused(given)).toThrow("The chat template does not use tools, so they would be lost.");
    expect(refused({ documents: [] })).toThrow(/does not use documents/);
    expect(refused({ tools: ["add"] as never })).toThrow(
      'Expected tools to be a list of objects, found ["add"].',
    );
  });

  it("refuses options that exclude each other, and variables that are options", () => {
    const refused = (options: RenderOptions, messages = [user("hi"), assistant("he")]) =>
      expect(() => renderChat(CHATML, tokenizer, messages, options));
    refused({ continueFinalMessage: true, addGenerationPrompt: true }).toThrow(/found both/);
    refused({ variables: { add_generation_prompt: false } }).toThrow(/Expected addGenerationPrompt in place/);
    refused({ continueFinalMessage: "thinking" }).toThrow(/does not use thinking/);
    refused({}, []).toThrow("Expected at least one message, found none.");
    const deaf = "{{ messages[0].content }}";
    expect(() =>
      renderChat(deaf, tokenizer, [user("hi"), assistant("he")], { continueFinalMessage: true }),
    ).toThrow(/leaves the final message out/);
  });
});

interface Golden {
  special: Record<string, Record<string, string>>;
  templates: Record<string, string>;
  chats: Record<string, ChatMessage[]>;
  cases: {
    kind: string;
    template: string;
    chat: string;
    options: Record<string, never>;
    text: string;
    ids: number[];
  }[];
}

/** What `apply_chat_template` of transformers 5.24 gives; see scripts/make-text-goldens.py. */
describe("goldens of transformers", () => {
  const golden: Golden = JSON.parse(
    readFileSync(new URL("../../fixtures/chat-templates.json", import.meta.url), "utf8"),
  );
  const load = (kind: string) => tokenizerOf(kind, golden.special[kind]);
  const picture = {
    role: "user",
    content: [
      { type: "image" as const, image: "picture" },
      { type: "text" as const, text: "What?" },
    ],
  };
  const imageRules: ImageRules<unknown> = {
    placeholder: "<image>",
    expand: () => ({ text: "<image>".repeat(4), grid: { rows: 2, columns: 2 } }),
  };

  it.each(Object.keys(golden.templates))("%s", (template) => {
    const cases = golden.cases.filter((each) => each.template === template);
    expect(cases.length).toBeGreaterThan(1);
    for (const { kind, chat, options, text, ids } of cases) {
      const { add_generation_prompt = false, continue_final_message, ...others } = options;
      const rendering = {
        addGenerationPrompt: add_generation_prompt,
        ...(continue_final_message === undefined ? {} : { continueFinalMessage: continue_final_message }),
        ...others,
      };
      const templates = { default: golden.templates[template]! };
      const subject = load(kind);
      const found =
        chat === "picture"
          ? chatPrompt(templates, subject, [picture], { ...rendering, imageRules })
          : chatPrompt(templates, subject, golden.chats[chat]!, rendering);
      expect(found.text, `${kind} ${chat}`).toBe(text);
      expect(found.ids, `${kind} ${chat}`).toEqual(ids);
    }
  });
});

describe("chatPrompt", () => {
  const imageRules: ImageRules<object> = {
    placeholder: "<image>",
    expand: () => ({ text: "<image>".repeat(4), grid: { rows: 2, columns: 2 } }),
  };
  const question = (image: object, text: string): ChatMessage<object> => ({
    role: "user",
    content: [
      { type: "text", text },
      { type: "image", image },
    ],
  });

  it("has the special tokens that a text model's template writes, and others if told to", () => {
    const ids = (template: string, bos?: boolean | "auto") =>
      chatPrompt({ default: template }, tokenizer, [user("hi")], bos === undefined ? {} : { bos }).ids;
    const plain = tokenizer.encode("hi", { specials: false });
    expect(ids("{{ messages[0].content }}")).toEqual(plain);
    expect(ids("{{ messages[0].content }}", "auto")).toEqual(plain);
    expect(ids("{{ messages[0].content }}", false)).toEqual(plain);
    expect(ids("{{ messages[0].content }}", true)).toEqual([1, ...plain]);
    expect(ids("{{ bos_token + messages[0].content }}", true)).toEqual([1, ...plain]);
  });

  it("refuses options that it does not have", () => {
    const options = { add_generation_prompt: false } as object;
    expect(() => chatPrompt({ default: INSTRUCT }, tokenizer, [user("hi")], options)).toThrow(
      /no option add_generation_prompt; expected one of addGenerationPrompt, /,
    );
  });

  it("puts the images of the messages where the template has their placeholders", () => {
    const cat = { name: "cat" };
    const dog = { name: "dog" };
    const messages: ChatMessage<object>[] = [
      question(cat, "What?"),
      { role: "assistant", content: [{ type: "text", text: "A cat." }] },
      question(dog, "And this?"),
    ];
    const p = chatPrompt({ default: LLAVA }, tokenizer, messages, { imageRules });
    expect(p.text).toBe("USER: <image>\nWhat? ASSISTANT: A cat. USER: <image>\nAnd this? ASSISTANT:");
    expect(p.images).toEqual([cat, dog]);
    expect(p.ids).toEqual(tokenizer.encode(p.text.replaceAll("<image>", "<image>".repeat(4))));
    expect(p.span("image2").grid).toEqual({ rows: 2, columns: 2 });
  });

  it("does not show the template the pixels", () => {
    const image = {
      get pixels(): never {
        throw new Error("the template was given the image");
      },
    };
    expect(
      chatPrompt({ default: LLAVA }, tokenizer, [question(image, "What?")], { imageRules }).images[0],
    ).toBe(image);
  });

  it.each([
    [{ type: "image_url", image_url: { url: "cat.png" } }, /found one of type image_url/],
    [{ type: "image" }, /found no image in one of type image/],
  ])("refuses pieces that would be lost: %j", (piece, message) => {
    const messages = [{ role: "user", content: [piece as never] }];
    expect(() => chatPrompt({ default: LLAVA }, tokenizer, messages, { imageRules })).toThrow(message);
  });

  it("refuses images that the template has no place for", () => {
    const textOnly = "{% for m in messages %}{{ m.role }}{% endfor %}";
    const refused = () =>
      chatPrompt({ default: textOnly }, tokenizer, [question({}, "What?")], { imageRules });
    expect(refused).toThrow(/0 placeholder\(s\) and 1 image\(s\)/);
  });

  it("names spans of the rendered text", () => {
    const p = chatPrompt({ default: INSTRUCT }, tokenizer, [user("Capital of Greece?")], {
      spans: { country: "Greece" },
    });
    const { start, end } = p.span("country");
    expect(tokenizer.decode(p.ids.slice(start, end)).trim()).toBe("Greece");
  });
});

describe("findChatTemplates", () => {
  const files = {
    jinja: "file",
    json: { chat_template: "json" },
    processorConfig: { chat_template: "processor" },
    tokenizerConfig: { chat_template: "tokenizer" },
  };

  /** The files in the order in which they are looked into: each is taken away once it has been found. */
  const order = (takesPictures: boolean) => {
    const left: Partial<Record<string, unknown>> = { ...files };
    const names = { file: "jinja", json: "json", processor: "processorConfig", tokenizer: "tokenizerConfig" };
    return Array.from({ length: 4 }, () => {
      const found = findChatTemplates(left, takesPictures)["default"] as keyof typeof names;
      delete left[names[found]];
      return found;
    });
  };

  it("looks where transformers 5 looks, and then elsewhere", () => {
    expect(order(true)).toEqual(["processor", "json", "file", "tokenizer"]);
    expect(order(false)).toEqual(["file", "tokenizer", "json", "processor"]);
    const without = { json: {}, processorConfig: null, tokenizerConfig: { bos_token: "<s>" } };
    expect(findChatTemplates(without, true)).toEqual({});
    expect(findChatTemplates({}, false)).toEqual({});
  });

  it("reads named templates, listed or by key", () => {
    const named = { tool_use: "tools", default: "plain" };
    const list = Object.entries(named).map(([name, template]) => ({ name, template }));
    expect(findChatTemplates({ tokenizerConfig: { chat_template: list } }, false)).toEqual(named);
    expect(findChatTemplates({ tokenizerConfig: { chat_template: named } }, false)).toEqual(named);
    expect(pickChatTemplate(named, false, false)).toBe("plain");
    expect(pickChatTemplate(named, true, false)).toBe("tools");
    expect(pickChatTemplate(named, true, true)).toBe("plain");
    expect(pickChatTemplate({ default: "plain" }, true, false)).toBe("plain");
    expect(() => pickChatTemplate({ rag: "r" }, false, false)).toThrow(/template called default, found rag/);
    expect(() => pickChatTemplate({}, false, false)).toThrow(/has no chat template/);
  });
});
