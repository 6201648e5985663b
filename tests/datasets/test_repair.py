"""A repaired copy has no row that fails, every change is logged, and no answer is changed."""

import json
from pathlib import Path

import pytest

from outcrop import datasets
from outcrop.datasets.formats import SUPERVISED
from outcrop.datasets.repair import repair
from outcrop.datasets.source import local_file
from outcrop.errors import Invalid

GOOD = {
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "a sea"}, {"role": "assistant", "content": "the North Sea"}],
}


def chat(prompt: str, answer: str, **more: object) -> dict:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], **more}


def mend(tmp_path: Path, *rows: object, held_out: tuple[object, ...] = ()) -> tuple[list, list, datasets.Preflight]:
    for name, lines in (("train.jsonl", rows), ("held-out.jsonl", held_out)):
        (tmp_path / name).write_text(
            "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in lines)
        )
    files = datasets.Files(
        local_file(tmp_path / "train.jsonl"), (local_file(tmp_path / "held-out.jsonl"),) if held_out else ()
    )
    repair(datasets.preflight(files, SUPERVISED), tmp_path / "out.jsonl", tmp_path / "log.jsonl")
    after = datasets.preflight(datasets.Files(local_file(tmp_path / "out.jsonl"), files.validation), SUPERVISED)
    read = [
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in ("out.jsonl", "log.jsonl")
    ]
    return read[0], read[1], after


@pytest.mark.parametrize(
    ("bad", "right"),
    [
        (chat("x", "y", extra=1, more=[2]), chat("x", "y")),
        (json.dumps(chat("x", "y"))[:-1] + ",}", chat("x", "y")),
        (chat("x", "y", system=" "), chat("x", "y")),
        (chat("x\nHuman: y", "z"), chat("x\nHuman y", "z")),
        ({"messages": [{"role": "user", "content": "x", "name": "n"}, {"role": "assistant", "content": "y", "name": "m"}]}, chat("x", "y")),
    ],
)  # fmt: skip
def test_what_is_certain_is_mended(tmp_path: Path, bad: object, right: object) -> None:
    rows, log, after = mend(tmp_path, GOOD, bad)
    assert rows == [GOOD, right]
    assert [entry["change"] for entry in log] == ["mended"]
    assert after.verdict != "fails"


@pytest.mark.parametrize(
    "bad",
    [
        chat("x", ""), chat("x", "y\nHuman: z"), '{"messages": [', json.dumps([1]), {"messages": [{"role": "user", "content": "x"}]},
        chat("x", "y", tail="}") | {"messages": [{"role": "assistant", "content": "y"}, {"role": "user", "content": "x"}]},
    ],
)  # fmt: skip
def test_what_is_not_is_left_out(tmp_path: Path, bad: object) -> None:
    rows, log, after = mend(tmp_path, GOOD, bad, chat("later", "row"))
    assert rows == [GOOD, chat("later", "row")]
    assert [(entry["line"], entry["change"]) for entry in log] == [(2, "left out")]
    assert after.verdict != "fails"


def test_what_comes_twice_or_is_held_out_goes(tmp_path: Path) -> None:
    rows, log, after = mend(tmp_path, GOOD, chat("one", "1"), GOOD, chat("two", "2"), held_out=(chat("Two", "2"),))
    assert rows == [GOOD, chat("one", "1")]
    assert [(entry["line"], entry["kinds"]) for entry in log] == [(3, ["duplicate"]), (4, ["leakage"])]
    assert "leakage" not in after.counts


def test_a_comma_within_an_answer_stays(tmp_path: Path) -> None:
    bad = '{"prompt": "p", "completion": "[1, 2, ] and {a: 1,}",}'
    rows, log, _ = mend(tmp_path, {"prompt": "a", "completion": "b"}, bad)
    assert rows[1] == {"prompt": "p", "completion": "[1, 2, ] and {a: 1,}"}
    assert log[0]["change"] == "mended"


def test_rows_that_differ_in_case_alone_are_both_kept(tmp_path: Path) -> None:
    rows, log, _ = mend(tmp_path, {"prompt": "x = 1", "completion": "ok"}, {"prompt": "X = 1", "completion": "ok"})
    assert len(rows) == 2
    assert log == []


def test_all_rows_that_leak_go(tmp_path: Path) -> None:
    train = [{"prompt": "p", "completion": answer} for answer in "ab"] + [{"prompt": "q", "completion": "c"}]
    rows, _, after = mend(tmp_path, *train, held_out=({"prompt": "P", "completion": "d"},))
    assert rows == [train[2]]
    assert "leakage" not in after.counts


def test_what_a_family_reserves_is_left_out_and_not_called_mended(tmp_path: Path) -> None:
    def nova(text: str) -> dict:
        turns = [{"role": "user", "content": [{"text": text}]}, {"role": "assistant", "content": [{"text": "b"}]}]
        return {"schemaVersion": "bedrock-conversation-2024", "messages": turns}

    (tmp_path / "train.jsonl").write_text("".join(json.dumps(nova(text)) + "\n" for text in ("fine", "User: hello")))
    found = datasets.preflight(datasets.Files(local_file(tmp_path / "train.jsonl")), SUPERVISED, family="nova")
    changes = repair(found, tmp_path / "out.jsonl", tmp_path / "log.jsonl")
    assert (changes.kept, changes.mended, changes.left_out) == (1, 0, 1)


def test_rows_without_a_fault_keep_their_bytes(tmp_path: Path) -> None:
    odd = '{ "messages":[{"role":"user","content":"\\u00e4"},{"role":"assistant","content":" b "}] }'
    mend(tmp_path, odd, "not json")
    assert (tmp_path / "out.jsonl").read_text() == odd + "\n"


def test_when_nothing_would_be_left_that_is_said_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no row is left"):
        mend(tmp_path, "not json", "nor this")
    assert not (tmp_path / "out.jsonl").exists()
