"""Sweeps: every combination, one set of rows, losers stopped."""

import os
import subprocess
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from outcrop.demo.tickets import tickets
from outcrop.errors import Invalid
from outcrop.workflows.sweep import Trial, combinations, is_losing, picture


def trial(*losses: float) -> Trial:
    curve = [((place + 1) / len(losses), loss) for place, loss in enumerate(losses)]
    return Trial({"batchSize": "8"}, min(losses), curve, False, 1.0)


def test_every_combination_is_tried_once() -> None:
    tried = combinations({"batchSize": ["4", "8"], "epochCount": ["1", "2", "3"]}, {})
    assert len(tried) == len({tuple(one.items()) for one in tried}) == 6


def test_what_changes_the_rows_cannot_be_swept() -> None:
    with pytest.raises(Invalid, match="maxTokens"):
        combinations({"maxTokens": ["10", "20"]}, {})
    with pytest.raises(Invalid, match="both set and in the grid"):
        combinations({"batchSize": ["4"]}, {"batchSize": "8"})


def test_a_trial_is_stopped_when_it_is_behind_the_median_of_those_before_it() -> None:
    before = [trial(3.0, 2.0, 1.0), trial(4.0, 3.0, 2.0), trial(5.0, 4.0, 3.0)]
    assert not is_losing([], before)
    assert not is_losing([(0.2, 9.0)], before), "too early to tell"
    assert not is_losing([(0.4, 3.5)], before)
    assert is_losing([(0.4, 4.5)], before)
    assert not is_losing([(0.4, 4.5)], before[:1]), "one trial is no crowd"
    assert not is_losing([(0.4, 3.0), (0.7, 9.0)], before), "its best counts"


def test_the_picture_is_whole_with_and_without_losses() -> None:
    failed = Trial({"batchSize": "4"}, None, [], False, 1.0, "<reason>")
    for trials in ([trial(3.0, 2.0), failed], [failed]):
        assert ElementTree.fromstring(picture(trials)).tag.endswith("svg")


@pytest.mark.slow
def test_a_sweep_ends_with_a_table_and_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(ticket.row + "\n" for ticket in islice(tickets(3), 40)))
    done = subprocess.run(
        ["outcrop", "sweep", str(file), "--base", "outcrop.pebble-v1:0", "--grid", "learningRateMultiplier=0.1,1",
         "--set", "batchSize=8", "--out", str(tmp_path / "sweep")],
        env={**os.environ, "OUTCROP_HOME": str(tmp_path / "home"), "COLUMNS": "160"}, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ranked = msgspec.json.decode((tmp_path / "sweep/sweep.json").read_bytes(), type=list[Trial])
    assert [one.hyperparameters["learningRateMultiplier"] for one in ranked] == ["1", "0.1"]
    losses = [one.loss for one in ranked]
    assert losses == sorted(losses)
    assert ElementTree.parse(tmp_path / "sweep/sweep.svg")
