"""A teacher's token distribution at every place where a student learns: what to learn in the place of single tokens.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), at temperature 1. A place's MOST likeliest tokens are
kept, their probabilities made to add up to 1: the loss is then the cross-entropy with the teacher's distribution, in the same units
as before, and nothing else of the training changes.

Shape legend: T tokens laid end to end, A answer tokens of all rows in their order, K tokens kept a place, V vocabulary.
"""

import json
from pathlib import Path

import torch

from outcrop.datasets.rows import Rows, Targets
from outcrop.errors import Invalid
from outcrop.training.attention import laid_out
from outcrop.training.batches import Microbatch
from outcrop.training.lora import CONFIG, add_adapters, load_adapters
from outcrop.training.model import load_base

MOST = 32
TOKENS_AT_ONCE = 4096


@torch.no_grad()
def write_targets(rows: Rows, folder: Path, adapter: Path | None, path: Path) -> None:
    """Ask a teacher about every answer token of some rows, and lay down what it would say.

    Its tokens must be the student's. Raises Invalid when its vocabulary is too small for these rows, and as `load_base` does.
    """
    model = load_base(folder)
    if adapter is not None:
        config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
        load_adapters(add_adapters(model, config["r"], config["lora_alpha"], 0.0, 0), adapter)
    model.eval()
    vocabulary = int(model.config.vocab_size)
    if int(rows.tokens.max()) >= vocabulary:
        raise Invalid(
            f"the teacher knows {vocabulary:,} tokens, the rows have others; distillationLoss distribution needs one tokenizer"
        )
    kept = min(MOST, vocabulary)
    tokens_AK = torch.empty((int(rows.is_answer.sum()), kept), dtype=torch.int32)
    weights_AK = torch.empty((len(tokens_AK), kept), dtype=torch.float32)
    done = 0
    cap = getattr(model.config, "final_logit_softcapping", None)
    for chunk in _chunks(rows):
        batch = Microbatch.of(rows, chunk, shares=False)
        with laid_out(batch.attention):
            hidden_1TW = model.get_decoder()(
                input_ids=batch.tokens_1T, position_ids=batch.positions_1T, use_cache=False
            ).last_hidden_state
        logits_AV = model.get_output_embeddings()(hidden_1TW[0, batch.places_U]).float()
        if cap is not None:
            logits_AV = torch.tanh(logits_AV / cap) * cap
        top = logits_AV.topk(kept, -1)
        tokens_AK[done : done + len(logits_AV)] = top.indices.to(torch.int32)
        weights_AK[done : done + len(logits_AV)] = top.values.softmax(-1)
        done += len(logits_AV)
        rows.release()
    assert done == len(tokens_AK), "every answer token has its place"
    Targets(tokens_AK.numpy(), weights_AK.numpy()).write(path)


def _chunks(rows: Rows) -> list[list[int]]:
    """Rows in their order, as many at once as make TOKENS_AT_ONCE, one at least."""
    chunks: list[list[int]] = []
    size = 0
    for index in range(len(rows)):
        if not chunks or size + rows.length(index) > TOKENS_AT_ONCE:
            chunks.append([])
            size = 0
        chunks[-1].append(index)
        size += rows.length(index)
    return chunks
