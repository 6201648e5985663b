"""A description counts what is there, in the base's own tokens."""

import json
from pathlib import Path

import pytest

from outcrop import datasets
from outcrop.datasets import description, page
from outcrop.datasets.formats import SUPERVISED
from outcrop.datasets.source import local_file
from outcrop.errors import Invalid
from outcrop.rendering import Conversation, Renderer
from tests.models import make_tokenizer

ROWS = [
    {"prompt": f"a long beginning that all rows share, then {word}", "completion": word * 2}
    for word in ("cat", "dog", "house", "cat and dog")
]


@pytest.fixture
def opened(tmp_path: Path) -> tuple[datasets.Preflight, Renderer]:
    make_tokenizer(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in ROWS))
    return datasets.preflight(datasets.Files(local_file(path)), SUPERVISED), Renderer(tmp_path)


def test_lengths_are_those_that_training_sees(opened: tuple[datasets.Preflight, Renderer]) -> None:
    found, renderer = opened
    what = description.describe(found.reports[0], renderer)
    rows = [renderer.training_row(Conversation.of(row["prompt"], row["completion"])) for row in ROWS]
    assert what.whole.total == sum(len(row.tokens) for row in rows)
    assert what.answers.total == sum(sum(row.is_answer) for row in rows)
    assert what.whole.percentiles[100] == max(len(row.tokens) for row in rows)
    assert sum(what.answers.counts) == len(ROWS)
    assert what.distinct_prompts == 1


def test_what_rows_share_is_what_a_tree_of_them_saves(opened: tuple[datasets.Preflight, Renderer]) -> None:
    found, renderer = opened
    rows = [tuple(renderer.training_row(Conversation.of(row["prompt"], row["completion"])).tokens) for row in ROWS]
    tree = {row[:size] for row in rows for size in range(1, len(row) + 1)}
    total = sum(map(len, rows))
    assert description.describe(found.reports[0], renderer).shared == pytest.approx(1 - len(tree) / total)


def test_a_mask_is_the_rows_own(opened: tuple[datasets.Preflight, Renderer]) -> None:
    found, renderer = opened
    tokens = description.mask_of(found.reports[0], renderer, 2)
    row = renderer.training_row(Conversation.of(ROWS[0]["prompt"], ROWS[0]["completion"]))
    assert [token.id for token in tokens] == row.tokens
    assert [token.is_learned for token in tokens] == row.is_answer
    assert "".join(token.text for token in tokens if token.is_learned).startswith("catcat")
    assert tokens[0].is_special
    with pytest.raises(Invalid, match="no row begins on line 9"):
        description.mask_of(found.reports[0], renderer, 9)


def test_the_page_holds_no_markup_of_the_rows(opened: tuple[datasets.Preflight, Renderer]) -> None:
    found, renderer = opened
    what = description.describe(found.reports[0], renderer)
    masks = {2: [description.Token(1, "<script>alert(1)</script>", True, False)]}
    shown = page.page("<b>rows", "base", what, found, masks)
    assert "<script>" not in shown
    assert "<b>rows" not in shown
    assert shown.count("<svg") == 2
