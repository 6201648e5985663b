"""What an answer costs by the engine is what training says that it costs."""

import pytest
import torch

from outcrop import invocation
from outcrop.datasets.rows import Rows
from outcrop.registry import Registry
from outcrop.registry.base_models import PEBBLE_FOLDER
from outcrop.rendering import Conversation, Renderer
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.training.attention import laid_out
from outcrop.training.batches import Microbatch
from outcrop.training.model import load_base
from outcrop.workflows.answering import own_engine

TOLD = (
    Conversation.of("Anna: red\n\nWhat is the color of Anna?", "The color of Anna is red."),
    Conversation.of("Tom: Paris", "Paris", "Lena: Oslo", "Oslo", system="Say the city."),
)


def by_training(told: Conversation) -> float:
    """The summed loss (nats) of all learned tokens of the last answer."""
    alone = Conversation(told.messages, told.system)
    row = Renderer(PEBBLE_FOLDER).training_row(alone)
    end = len(row.is_answer) - row.is_answer[::-1].index(True)
    begin = end - row.is_answer[:end][::-1].index(False)
    row = type(row)(row.tokens, [begin <= place < end for place in range(len(row.tokens))])
    model = load_base(PEBBLE_FOLDER)
    batch = Microbatch.of(Rows.of([row]), [0])
    with torch.no_grad(), laid_out(batch.attention):
        hidden = model.get_decoder()(
            input_ids=batch.tokens_1T, position_ids=batch.positions_1T, use_cache=False
        ).last_hidden_state[0, batch.places_U]
        return float(
            torch.nn.functional.cross_entropy(model.get_output_embeddings()(hidden), batch.targets_S, reduction="sum")
        )


@pytest.mark.slow
def test_the_engines_loss_of_an_answer_is_the_trainers(tmp_path) -> None:
    storage = Storage(tmp_path)
    with own_engine(storage, Registry(storage), Settings(home=tmp_path), "test", "outcrop.pebble-v1:0") as asking:
        for told in TOLD:
            cost, tokens = invocation.loss(asking, "outcrop.pebble-v1:0", told)
            assert tokens > 1
            assert cost == pytest.approx(by_training(told), rel=1e-4)
