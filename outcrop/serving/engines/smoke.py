"""A smoke test of a model, in a process of its own: `python -m outcrop.serving.engines.smoke FOLDER [ADAPTER]`.

transformers' own classes say what a short text costs the model and what each next token should be; the embedded engine must
say the same, for the prompt at once and token by token, or the model is refused: what the engine does not know of an
architecture it would otherwise leave out without a word. No code of the folder is run. Prints JSON.
"""

import json
import sys
from math import isnan, log
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, logging

from outcrop.errors import Invalid
from outcrop.registry.merge import adapted, applied
from outcrop.serving.engines.batch import Part
from outcrop.serving.engines.torch_engine import TorchEngine

# Written for this; plain English that any model of the language finds likely.
TEXT = (
    "The town lies in a valley between two rivers. In the morning the market opens, and people come from the villages to "
    "sell bread, milk and fruit. When it rains, the children stay in the school until their parents come for them. In the "
    "evening the shops close, the lamps are lit, and most families sit at the table and talk about the day."
)
WRITTEN, COMPARED = 24, 6
# Largest difference of a logit between the engine and transformers, in standard deviations of the logits; float32 sums
# taken in another order differ by some 1e-6.
MOST_DIFFERENCE = 1e-3


def main(folder: Path, adapter: Path | None) -> int:
    """Load, measure, write, compare. Exit status 0 when the model can be served."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        found = smoke_test(folder, adapter)
    except Invalid as error:
        found = {"reason": error.message}
    except (OSError, ValueError, KeyError, RuntimeError, IndexError, TypeError, AttributeError) as error:
        reason = f"the weights do not load as the config says: {type(error).__name__}: {error}"
        found = {"reason": reason[:1500]}
    print(json.dumps(found))
    return 1 if "reason" in found else 0


@torch.no_grad()
def smoke_test(folder: Path, adapter: Path | None) -> dict[str, Any]:
    """What was found, or the `reason` why the model is refused."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True, trust_remote_code=False,
        use_safetensors=True,
    ).eval()  # fmt: skip
    pairs = adapted(model, adapter) if adapter is not None else {}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids_1T = torch.tensor([tokenizer.encode(TEXT).ids])
    begin = ids_1T[:, : ids_1T.shape[1] // 2]
    with applied(pairs):
        logits_TV = model(ids_1T).logits[0, :-1].float()
        loss = float(torch.nn.functional.cross_entropy(logits_TV, ids_1T[0, 1:]))
        if isnan(loss):
            return {"reason": "the model's logits are no numbers; the weights are damaged"}
        written = model.generate(
            begin, attention_mask=torch.ones_like(begin), max_new_tokens=WRITTEN, do_sample=False, pad_token_id=0
        )
    del model
    off = difference(folder, adapter, ids_1T[0], begin.shape[1], logits_TV)
    if off > MOST_DIFFERENCE:
        return {"reason": f"the engine does not compute this architecture as transformers does: logits differ by {off:.1e} of "
                          "their standard deviation"}  # fmt: skip
    sample = tokenizer.decode(written[0, begin.shape[1] :].tolist())
    return {"loss": loss, "uniform_loss": log(logits_TV.shape[-1]), "sample": sample}


def difference(folder: Path, adapter: Path | None, ids_T: Tensor, begin: int, expected_TV: Tensor) -> float:
    """How far the engine's logits are from those expected, after `begin` tokens and after some more, one by one."""
    engine = TorchEngine(folder, slots=2)
    line = engine.pages.begin(ids_T.tolist(), None, len(ids_T))
    assert line is not None
    place = None
    if adapter is not None:
        engine.adapters.load(str(adapter))
        place = engine.adapters.use(str(adapter))
    off = 0.0
    for last in range(begin - 1, min(begin + COMPARED, len(expected_TV))):
        logits = torch.from_numpy(engine.compute([Part(line, last + 1 - line.length, place)])[0])
        expected = expected_TV[last]
        worst = float((logits - expected).abs().max() / expected.std())
        off = max(off, worst if worst == worst else float("inf"))
    return off


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
