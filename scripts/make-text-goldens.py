"""Goldens of chat templates and added tokens for the tests, from transformers and its tokenizers:

  python scripts/make-text-goldens.py

It writes chat-templates.json, added-tokens.json and pre-tokenizers.json in test/fixtures. Needs transformers and Pillow.
"""

import json
import random
from pathlib import Path

import tokenizers
import transformers
from PIL import Image
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

FIXTURES = Path(__file__).resolve().parent.parent / "test/fixtures"

TEMPLATES = {
    "instruct": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
    "plain": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}",
    "late": "{% for m in messages %}{{ '\n' + bos_token + m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}",
    "tools": "{% if tools is not none %}tools {{ tools | tojson }}\n{% endif %}{% if documents is not none %}"
    "{% for d in documents %}doc {{ d.title }}: {{ d.text }}\n{% endfor %}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    "think": "{% for m in messages %}{{ m.role }}: {% if m.reasoning_content %}({{ m.reasoning_content }}) {% endif %}"
    "{{ m.content | trim }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
    "missing": "[{{ pad_token }}]{% for m in messages %}{{ m.content }}{% if m.name is defined %}{{ m.name }}"
    "{% endif %}{% endfor %}",
}
PICTURED = "{% for m in messages %}START{{ m.role | upper }}: {% for p in m.content %}{% if p.type == 'image' %}<image>\n"
PICTURED += "{% else %}{{ p.text }} {% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
PICTURED_TEMPLATES = {
    "llava": PICTURED.replace("START", ""),
    "llava-bos": PICTURED.replace("START", "{{ bos_token }}"),
    "llava-late": PICTURED.replace("START", "{{ '\n' + bos_token }}"),
}
CHATS = {
    "one": [{"role": "user", "content": " Hello, world "}],
    "three": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi there"},
        {"role": "user", "content": "Łódź?"},
    ],
    "open": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "The answer is "}],
    "reasons": [
        {"role": "user", "content": "Hello", "name": None},
        {"role": "assistant", "content": " Hi ", "reasoning": "because"},
    ],
}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
DOCUMENTS = [{"title": "A", "text": "one"}]
SPECIAL = {
    "spm-bpe": {"bos_token": "<s>", "eos_token": "</s>"},
    "spm-gemma": {"bos_token": "<bos>", "eos_token": "<eos>"},
    "byte-smol": {"eos_token": "<|endoftext|>"},
}


def tokenizer_file(kind):
    return FIXTURES / "tokenizers" / kind / "tokenizer.json"


def options_for(template, chat):
    options = [{}, {"add_generation_prompt": True}]
    if CHATS[chat][-1]["role"] == "assistant":
        options.append({"continue_final_message": True})
    if chat == "reasons" and template == "think":
        options.append({"continue_final_message": "reasoning"})
    if template == "tools":
        options += [{"tools": TOOLS}, {"documents": DOCUMENTS}]
    return options


def text_cases():
    for kind, special in SPECIAL.items():
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file(kind)), **special)
        for template, source in TEMPLATES.items():
            if template in ("late", "instruct") and "bos_token" not in special:
                continue
            for chat, messages in CHATS.items():
                for options in options_for(template, chat):
                    apply = lambda **how: tokenizer.apply_chat_template(
                        messages, chat_template=source, **how, **options
                    )
                    yield {
                        "kind": kind,
                        "template": template,
                        "chat": chat,
                        "options": options,
                        "text": apply(tokenize=False),
                        "ids": apply(tokenize=True, return_dict=False),
                    }


def picture_cases():
    kind = "spm-bpe"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file(kind)), **SPECIAL[kind])
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    content = [{"type": "image", "image": Image.new("RGB", (28, 28))}, {"type": "text", "text": "What?"}]
    messages = [{"role": "user", "content": content}]
    for template, source in PICTURED_TEMPLATES.items():
        for options in [{}, {"add_generation_prompt": True}]:
            apply = lambda **how: processor.apply_chat_template(messages, chat_template=source, **how, **options)
            ids = apply(tokenize=True, return_dict=True, return_tensors="pt")["input_ids"][0].tolist()
            yield {
                "kind": kind,
                "template": template,
                "chat": "picture",
                "options": options,
                "text": apply(tokenize=False),
                "ids": ids,
            }


FLAGGED = ["<tok>", "[NRM]", "tok", "ab", " cat "]
ATOMS = ["a", "b", "tok", "<tok>", "[NRM]", " ", "  ", "\n", "\t", "\u0085", "\ufeff", "\u200b", "\u00a0", "é", "e\u0301"]
ATOMS += ["Ł", "日本", "👍🏽", "_", "-", ".", "1", "٣", "the", " cat", "The", "<image>", "</s>", "\u3000", "𝒳", "A"]


def added_token_cases(random_numbers):
    flag = lambda: random_numbers.random() < 0.5
    for kind in ["bert", "byte-llama3", "byte-qwen2", "byte-smol", "spm-bpe", "spm-bpe-metaspace", "spm-gemma"]:
        for _ in range(3):
            file = json.loads(tokenizer_file(kind).read_text())
            first = 1 + max([*file["model"]["vocab"].values(), *(token["id"] for token in file["added_tokens"])])
            added = [
                {
                    "id": first + i,
                    "content": content,
                    "single_word": flag(),
                    "lstrip": flag(),
                    "rstrip": flag(),
                    "normalized": flag(),
                    "special": flag(),
                }
                for i, content in enumerate(FLAGGED)
            ]
            file["added_tokens"] += added
            tokenizer = tokenizers.Tokenizer.from_str(json.dumps(file))
            texts = ["".join(random_numbers.choices(ATOMS, k=random_numbers.randint(1, 8))) for _ in range(40)]
            encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
            yield {"kind": kind, "added": added, "rows": [list(row) for row in zip(texts, encoded)]}


def write(name, value):
    (FIXTURES / name).write_text(json.dumps(value, ensure_ascii=False) + "\n")


write(
    "chat-templates.json",
    {
        "transformers": transformers.__version__,
        "special": SPECIAL,
        "templates": {**TEMPLATES, **PICTURED_TEMPLATES},
        "chats": CHATS,
        "cases": [*text_cases(), *picture_cases()],
    },
)
write("added-tokens.json", {"tokenizers": tokenizers.__version__, "cases": list(added_token_cases(random.Random(1)))})


def pre_tokenizer_cases(random_numbers):
    behaviors = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
    patterns = [{"String": " "}, {"String": "ab"}, {"String": "."}, {"Regex": r"\s+"}, {"Regex": r"\d"}, {"Regex": r"(a|b)+|\p{P}"}]
    stages = [
        {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
        for pattern in patterns
        for behavior in behaviors
        for invert in (False, True)
    ]
    stages += [{"type": "Punctuation", "behavior": behavior} for behavior in behaviors]
    stages += [{"type": "Digits", "individual_digits": individual} for individual in (False, True)]
    stages += [{"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"}]
    stages += [
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
        for scheme in ("always", "first", "never")
        for split in (False, True)
    ]
    stages += [
        {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}
        for prefix in (False, True)
        for regex in (False, True)
    ]
    atoms = [" ", "  ", "a", "ab", "b", ".", "!!", "$", "«", "1", "23", "\n", "é", "日", "x-y", "_", "٣", "²"]
    texts = ["".join(random_numbers.choices(atoms, k=random_numbers.randint(1, 9))) for _ in range(25)]
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    for stage in stages:
        file = {"version": "1.0", "added_tokens": [], "pre_tokenizer": stage, "model": model}
        pre = tokenizers.Tokenizer.from_str(json.dumps(file)).pre_tokenizer
        yield {"stage": stage, "rows": [[text, [piece for piece, _ in pre.pre_tokenize_str(text)]] for text in texts]}


write(
    "pre-tokenizers.json",
    {"tokenizers": tokenizers.__version__, "cases": list(pre_tokenizer_cases(random.Random(2)))},
)
