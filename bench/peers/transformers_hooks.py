"""Times a language model in PyTorch with Hugging Face transformers, as `npm run bench -- hooks` does in xpatch.

    python transformers_hooks.py FOLDER

FOLDER/request.json: model, prefill (ids), decode (ids of the prompt), new_tokens, query (ids). FOLDER/vectors.safetensors: vectors [layers, width],
what each layer's output is set to at the last token. Then a job for each line on stdin, answered by a line of JSON: ids and milliseconds.

    prefill   the next token after a prompt
    decode    tokens after the first, with a KV cache
    plain     the next token with each layer patched in turn: a pass with a hook for each
    batch     the same as one pass over a copy of the query for each layer, with a hook on every layer
"""

import json
import sys
import time

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

folder = sys.argv[1]
with open(f"{folder}/request.json") as file:
    request = json.load(file)
vectors = load_file(f"{folder}/vectors.safetensors")["vectors"]
model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32).eval()
layers = model.model.layers


def patch(layer, row):
    """Sets the output of a layer at the last token of one row of the batch; the handle takes it away again."""

    def hook(_module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden[row, -1] = vectors[layer]

    return layers[layer].register_forward_hook(hook)


def next_ids(ids):
    return model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].argmax(-1)


def prefill():
    began = time.perf_counter()
    return next_ids(torch.tensor([request["prefill"]])).tolist(), began


def decode():
    step = model(input_ids=torch.tensor([request["decode"]]), use_cache=True, logits_to_keep=1)
    token = step.logits[:, -1].argmax(-1)
    ids = [token.item()]
    began = time.perf_counter()
    for _ in range(request["new_tokens"]):
        step = model(input_ids=token[:, None], past_key_values=step.past_key_values, use_cache=True)
        token = step.logits[:, -1].argmax(-1)
        ids.append(token.item())
    return ids, began


def plain():
    query = torch.tensor([request["query"]])
    began = time.perf_counter()
    found = []
    for layer in range(len(layers)):
        handle = patch(layer, 0)
        found.append(next_ids(query))
        handle.remove()
    return torch.cat(found).tolist(), began


def batch():
    query = torch.tensor([request["query"]])
    began = time.perf_counter()
    handles = [patch(layer, layer) for layer in range(len(layers))]
    found = next_ids(query.repeat(len(layers), 1))
    for handle in handles:
        handle.remove()
    return found.tolist(), began


jobs = {"prefill": prefill, "decode": decode, "plain": plain, "batch": batch}
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
with torch.inference_mode():
    for line in sys.stdin:
        ids, began = jobs[line.strip()]()
        print(json.dumps({"ids": ids, "ms": (time.perf_counter() - began) * 1000}), flush=True)
