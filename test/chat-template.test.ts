import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { ImageRules } from "../src/model/build-prompt.ts";
import { type ChatMessage, chatPrompt, findChatTemplate, renderChat } from "../src/model/chat-template.ts";
import { createTokenizer } from "../src/model/tokenizer.ts";
import { PromptError } from "../src/tensor/errors.ts";

const tokenizer = createTokenizer(
  JSON.parse(readFileSync(new URL("./fixtures/tokenizers/spm-bpe/tokenizer.json", import.meta.url), "utf8")),
  { bos_token: "<s>", eos_token: "</s>" },
);

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
    expect(renderChat(CHATML, tokenizer, [user("hi")])).toBe(`${head}<|im_start|>assistant\n`);
    expect(renderChat(CHATML, tokenizer, [user("hi")], { addGenerationPrompt: false })).toBe(head);
  });

  it("passes further variables on, which go before the special tokens", () => {
    const options = { variables: { tools: ["a", "b"], eos_token: "!" } };
    expect(renderChat("{{ tools | length }}{{ eos_token }}", tokenizer, [], options)).toBe("2!");
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

  it("says so if there is no template", () => {
    expect(() => renderChat(undefined, tokenizer, [user("hi")])).toThrow(/has no chat template/);
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

  it("has BOS once, whether the template writes it or not", () => {
    const written = chatPrompt(INSTRUCT, tokenizer, [user("hi")]);
    expect(written.ids).toEqual(tokenizer.encode("[INST] hi [/INST]"));
    expect(written.bos).toBe(true);
    const left = chatPrompt("{{ messages[0].content }}", tokenizer, [user("hi")]);
    expect(left.ids).toEqual(tokenizer.encode("hi"));
    expect(chatPrompt("{{ messages[0].content }}", tokenizer, [user("hi")], { bos: false }).bos).toBe(false);
  });

  it("puts the images of the messages where the template has their placeholders", () => {
    const cat = { name: "cat" };
    const dog = { name: "dog" };
    const messages: ChatMessage<object>[] = [
      question(cat, "What?"),
      { role: "assistant", content: [{ type: "text", text: "A cat." }] },
      question(dog, "And this?"),
    ];
    const p = chatPrompt(LLAVA, tokenizer, messages, { imageRules });
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
    expect(chatPrompt(LLAVA, tokenizer, [question(image, "What?")], { imageRules }).images[0]).toBe(image);
  });

  it("refuses images that the template has no place for", () => {
    const textOnly = "{% for m in messages %}{{ m.role }}{% endfor %}";
    const refused = () => chatPrompt(textOnly, tokenizer, [question({}, "What?")], { imageRules });
    expect(refused).toThrow(/0 placeholder\(s\) and 1 image\(s\)/);
  });

  it("names spans of the rendered text", () => {
    const p = chatPrompt(INSTRUCT, tokenizer, [user("Capital of Greece?")], { spans: { country: "Greece" } });
    const { start, end } = p.span("country");
    expect(tokenizer.decode(p.ids.slice(start, end)).trim()).toBe("Greece");
  });
});

describe("findChatTemplate", () => {
  it("looks in the files in order of precedence", () => {
    const files = {
      jinja: "file",
      json: { chat_template: "json" },
      processorConfig: { chat_template: "processor" },
      tokenizerConfig: { chat_template: "tokenizer" },
    };
    const { jinja, ...noJinja } = files;
    const { json, ...noJson } = noJinja;
    const { processorConfig, ...tokenizerOnly } = noJson;
    const found = [files, noJinja, noJson, tokenizerOnly].map((some) => findChatTemplate(some));
    expect(found).toEqual([jinja, json.chat_template, processorConfig.chat_template, "tokenizer"]);
    expect(
      findChatTemplate({ json: {}, processorConfig: null, tokenizerConfig: { bos_token: "<s>" } }),
    ).toBeUndefined();
    expect(findChatTemplate({})).toBeUndefined();
  });

  it("picks among named templates, listed or by key", () => {
    const list = {
      chat_template: [
        { name: "tool_use", template: "tools" },
        { name: "default", template: "plain" },
      ],
    };
    expect(findChatTemplate({ tokenizerConfig: list })).toBe("plain");
    expect(findChatTemplate({ tokenizerConfig: list }, "tool_use")).toBe("tools");
    expect(findChatTemplate({ tokenizerConfig: list }, "rag")).toBeUndefined();
    expect(findChatTemplate({ tokenizerConfig: { chat_template: { default: "keyed" } } })).toBe("keyed");
  });
});
