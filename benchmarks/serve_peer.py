"""One peer's answers, in the peers' environment: `python serve_peer.py generate|ctranslate2 MODEL FORMAT BATCH PROMPT ANSWER`.

Prints one JSON line: seconds for one token and for all, by the shortest of several runs on one thread. Greedy, ends ignored.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

peer, folder, number_format = sys.argv[1:4]
batch, prompt, answer = (int(value) for value in sys.argv[4:7])
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
RUNS = 3 if batch == 1 else 1
draw = random.Random(0)


def timed(run):
    shortest = {}
    for tokens in (1, answer):
        run(tokens)
        times = []
        for _ in range(RUNS):
            began = time.perf_counter()
            run(tokens)
            times.append(time.perf_counter() - began)
        shortest[tokens] = min(times)
    print(json.dumps({"first_s": shortest[1], "all_s": shortest[answer]}))


if peer == "generate":
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[draw.randrange(4, model.config.vocab_size) for _ in range(prompt)] for _ in range(batch)])

    @torch.inference_mode()
    def run(tokens):
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens,
                       do_sample=False, pad_token_id=0)  # fmt: skip
else:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    converted = Path(f"{folder}-{number_format}")
    if not converted.exists():
        TransformersConverter(folder).convert(str(converted), quantization=number_format)
    names = json.loads((converted / "vocabulary.json").read_text())
    generator = ctranslate2.Generator(str(converted), device="cpu", intra_threads=1, inter_threads=1, compute_type=number_format)  # fmt: skip
    prompts = [[names[draw.randrange(4, len(names))] for _ in range(prompt)] for _ in range(batch)]

    def run(tokens):
        generator.generate_batch(prompts, max_length=tokens, min_length=tokens, sampling_topk=1, end_token=[],
                                 include_prompt_in_result=False, cache_static_prompt=False)  # fmt: skip


timed(run)
