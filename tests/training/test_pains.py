"""Faults that hurt users of other trainers, injected here: each is caught, and named.

`pytest -m pain` runs all of them, also those that stand where their room's tests are.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from outcrop import datasets
from outcrop.datasets import RowsCache, cache
from outcrop.datasets.formats import PLAIN_TEXT, SUPERVISED
from outcrop.datasets.source import Source
from outcrop.errors import Invalid
from outcrop.rendering import Conversation, Renderer
from outcrop.training.loop import run
from outcrop.training.plan import Plan, Settings
from tests.models import TEMPLATE, make_llama, make_tokenizer
from tests.training.test_exactness import trees

COVERED = {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 16, 17}


def file_of(folder: Path, *answers: str) -> Source:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": "the cat", "completion": one}) + "\n" for one in answers))
    return Source("s3://b/rows.jsonl", path, path.stat().st_size)


def report_of(source: Source) -> datasets.Report:
    return datasets.check(source, SUPERVISED, fewest=1, most=1000, most_bytes=10**9)


@pytest.mark.pain(4)
def test_the_end_token_is_learned_when_it_is_the_padding_token_too(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": config["eos_token"]}))
    renderer = Renderer(tmp_path)
    row = renderer.training_row(Conversation.of("the cat", "sat"))
    learned = [token for token, yes in zip(row.tokens, row.is_answer, strict=True) if yes]
    assert learned[-1] == renderer.eos_id


@pytest.mark.pain(5)
def test_rows_of_which_nothing_is_learned_fail_the_run_before_it_starts(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    rows = trees()
    masked = datasets.Rows(rows.tokens, rows.is_answer.copy(), rows.starts)
    masked.is_answer[rows.starts[2] : rows.starts[3]] = False
    folder = tmp_path / "run"
    folder.mkdir()
    masked.write(folder / "train.rows")
    Plan(base=str(base), settings=Settings(), threads=1).write(folder)
    with pytest.raises(Invalid, match="1 of 15 training rows have no token to learn, the first is row 3"):
        run(folder, lambda: False)
    assert not (folder / "checkpoints").exists()


@pytest.mark.pain(13)
def test_the_best_model_is_kept_when_training_goes_on_into_overfitting(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    folder = tmp_path / "run"
    folder.mkdir()
    trees(seed=1).write(folder / "train.rows")
    trees(seed=2).write(folder / "validation.rows")  # other words: what is learned by heart does not help
    settings = Settings(method="full", epochs=10, batch_rows=4, learning_rate=3e-3, early_stopping_patience=100)
    Plan(base=str(base), settings=settings, validation_rows=["validation.rows"], threads=1).write(folder)
    result = run(folder, lambda: False)
    said = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["losses"][0] for line in said if line["kind"] == "evaluation"}
    best = min(losses, key=losses.__getitem__)
    assert losses[result.steps] > losses[best], "the last model is the worse one"
    assert result.checkpoint == f"checkpoints/step-{best:07d}"
    assert result.validation_losses == [losses[best]]


@pytest.mark.pain(16)
def test_a_file_is_rendered_once_and_a_crash_on_the_way_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tokenizer(tmp_path)
    renderer, report = Renderer(tmp_path), report_of(file_of(tmp_path, "sat", "ran"))
    kept = RowsCache(tmp_path / "cache", 10**9)
    kept.folder.mkdir()
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(datasets.Rows, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        kept.render(report, renderer, 100, tmp_path / "one.rows")
    assert not list(kept.folder.glob("*.rows"))
    first = kept.render(report, renderer, 100, tmp_path / "one.rows")
    monkeypatch.setattr(cache, "render", lambda *_: pytest.fail("rendered again"))
    again = kept.render(report, renderer, 100, tmp_path / "two.rows")
    assert np.array_equal(first.tokens, again.tokens)
    assert np.array_equal(first.is_answer, again.is_answer)


@pytest.mark.pain(17)
def test_rows_of_another_file_tokenizer_template_or_length_are_never_taken(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    plain, report = Renderer(tmp_path), report_of(file_of(tmp_path, "sat", "ran"))
    keys = {cache.key_of(report, plain, 100), cache.key_of(report, plain, 99)}
    keys.add(cache.key_of(report_of(file_of(tmp_path, "sat", "ran!")), plain, 100))  # the file was edited
    make_tokenizer(tmp_path, template=TEMPLATE.replace("<|end|>", " <|end|>"))
    keys.add(cache.key_of(report, Renderer(tmp_path), 100))
    make_tokenizer(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].pop()
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    keys.add(cache.key_of(report, Renderer(tmp_path), 100))
    assert len(keys) == 5
    text = tmp_path / "rows.txt"
    text.write_bytes(report.source.path.read_bytes())
    as_text = datasets.check(
        Source("s3://b/rows.txt", text, text.stat().st_size), PLAIN_TEXT, fewest=1, most=1000, most_bytes=10**9
    )
    assert cache.key_of(as_text, plain, 100) not in keys

    def documents(content: bytes) -> str:
        text.write_bytes(content)
        found = datasets.check(
            Source("s3://b/rows.txt", text, text.stat().st_size), PLAIN_TEXT, fewest=1, most=1000, most_bytes=10**9
        )
        return cache.key_of(found, plain, 100)

    assert documents(b"one\n<|endoftext|>\ntwo\n") != documents(b"one\ntwo\n"), "where documents end"


def test_the_cache_lets_go_of_what_was_not_used_for_longest(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    renderer, kept = Renderer(tmp_path), RowsCache(tmp_path / "cache", 10**9)
    kept.folder.mkdir()
    for number, answer in enumerate(("sat", "ran", "went")):
        kept.render(report_of(file_of(tmp_path, answer)), renderer, 100, tmp_path / f"{number}.rows")
    files = sorted(kept.folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for age, path in enumerate(files):
        os.utime(path, (age, age))
    small = RowsCache(kept.folder, sum(path.stat().st_size for path in files[1:]))
    rows = small.render(report_of(file_of(tmp_path, "went")), renderer, 100, tmp_path / "again.rows")
    assert len(rows) == 1
    assert set(kept.folder.iterdir()) == set(files[1:])
    assert len(datasets.Rows.read(tmp_path / "0.rows")) == 1, "a run keeps its link"


def test_every_pain_of_training_has_its_test() -> None:
    tests = Path(__file__).parents[1].rglob("test_*.py")
    marked = {int(number) for path in tests for number in re.findall(r"mark\.pain\((\d+)\)", path.read_text())}
    assert marked >= COVERED
