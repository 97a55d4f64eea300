"""Times training steps of a LoRA in PyTorch with peft, as `npm run bench -- lora-step` does in xpatch.

    python lora_step.py FOLDER

FOLDER/request.json: model, rank, alpha, modules, ids [prompts, tokens], learning_rate, weight_decay. FOLDER/start.safetensors: A of each
module; B is 0. Then a step for each line on stdin, answered by a line of JSON: loss and milliseconds.
"""

import json
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

folder = sys.argv[1]
with open(f"{folder}/request.json") as file:
    request = json.load(file)
model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
config = LoraConfig(r=request["rank"], lora_alpha=request["alpha"], target_modules=request["modules"], lora_dropout=0.0)
model = get_peft_model(model, config)
start = load_file(f"{folder}/start.safetensors")
with torch.no_grad():
    for name, weight in model.named_parameters():
        if ".lora_A." in name:
            weight.copy_(start.pop(name.removeprefix("base_model.model.").replace(".lora_A.default.", ".lora_A.")))
assert not start, f"modules that are not adapted: {list(start)}"
trained = [w for w in model.parameters() if w.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=request["learning_rate"], weight_decay=request["weight_decay"])
ids = torch.tensor(request["ids"])
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
for _ in sys.stdin:
    began = time.perf_counter()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    value = loss.item()
    print(json.dumps({"loss": value, "ms": (time.perf_counter() - began) * 1000}), flush=True)
