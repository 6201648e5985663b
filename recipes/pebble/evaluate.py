"""Score a starter model: `python -m recipes.pebble.evaluate FOLDER`.

Each lesson is asked `--count` times on each side of the split: "trained" draws names and wordings that training also
draws (new combinations), "held-out" those that it never does. A row counts when every token of its last answer is the
model's first choice, which is the same as a greedy answer that is right to the letter. Prints JSON.
"""

import argparse
import json
import random
from pathlib import Path

import torch

from outcrop.datasets.rows import Rows
from outcrop.rendering import Conversation, Rendered, Renderer
from outcrop.training.attention import laid_out
from outcrop.training.batches import Microbatch
from outcrop.training.model import load_base
from recipes.pebble import shown
from recipes.pebble.lessons import LESSONS


def last_answer(conversation: Conversation) -> Conversation:
    """The conversation as one question: its context with the last question, as a user would ask it."""
    context = conversation.messages[0].text.rpartition("\n\n")[0]
    question, answer = conversation.messages[-2].text, conversation.messages[-1].text
    if len(conversation.messages) > 2 and context:
        question = f"{context}\n\n{question}"
    return Conversation.of(question, answer, system=conversation.system)


def last_alone(row: Rendered) -> Rendered:
    """The row with only its last answer learned; the turns before it are examples."""
    end = len(row.is_answer) - row.is_answer[::-1].index(True)
    begin = end - row.is_answer[:end][::-1].index(False)
    return Rendered(row.tokens, [begin <= place < end for place in range(len(row.tokens))])


def main() -> None:
    """Print the share of right answers by lesson and side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer and template, when FOLDER has none")
    parser.add_argument("--seed", type=int, default=12345)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    renderer = Renderer(chosen.tokenizer or chosen.folder)
    model = load_base(chosen.folder)
    scores: dict[str, dict[str, float]] = {}
    for name, lesson in {**LESSONS, **shown.LESSONS}.items():
        for side, held in (("trained", False), ("held-out", True)):
            rng = random.Random(f"{chosen.seed}-{name}-{side}")
            asked = [lesson(rng, held) for _ in range(chosen.count)]
            if name in shown.LESSONS:
                rendered = [last_alone(renderer.training_row(conversation)) for conversation in asked]
            else:
                rendered = [renderer.training_row(last_answer(conversation)) for conversation in asked]
            scores.setdefault(name, {})[side] = right_share(model, rendered)
    print(json.dumps(scores, indent=1))


def right_share(model: torch.nn.Module, rendered: list[Rendered]) -> float:
    """Share of rows whose every learned token is the model's first choice."""
    rows = Rows.of(rendered)
    right = 0
    with torch.no_grad():
        for row in range(len(rows)):
            batch = Microbatch.of(rows, [row])
            with laid_out(batch.attention):
                hidden = model.get_decoder()(
                    input_ids=batch.tokens_1T, position_ids=batch.positions_1T, use_cache=False
                ).last_hidden_state[0, batch.places_U]
            right += int((model.get_output_embeddings()(hidden).argmax(-1) == batch.targets_S).all())
    return round(right / len(rendered), 3)


if __name__ == "__main__":
    main()
