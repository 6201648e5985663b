"""Rows from elsewhere, and from one of Bedrock's forms into another: nothing is lost on the way, or the row is named."""

import json
from collections import Counter
from pathlib import Path

import pytest

from outcrop import datasets
from outcrop.datasets.conversion import WRITERS, Reading, convert
from outcrop.datasets.formats import SUPERVISED
from outcrop.datasets.mixing import mix, part
from outcrop.datasets.source import Source, local_file
from outcrop.errors import Invalid


def written(folder: Path, name: str, text: str) -> Source:
    (folder / name).write_text(text)
    return local_file(folder / name)


def rows_of(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines(rows: list) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


WANTED = {
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "Which sea?"}, {"role": "assistant", "content": "The North Sea."}],
}
PLAIN = {"messages": WANTED["messages"]}


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("openai.jsonl", lines([{"messages": [{"role": "system", "content": "Be brief."}, *WANTED["messages"]]}]), WANTED),
        ("parts.jsonl", lines([{"messages": [{"role": "user", "content": [{"type": "text", "text": "Which sea?"}]}, WANTED["messages"][1]]}]), PLAIN),
        ("sharegpt.json", json.dumps([{"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Which sea?"}, {"from": "gpt", "value": "The North Sea."}]}]), WANTED),
        ("alpaca.json", json.dumps([{"instruction": "Which sea?", "input": "", "output": "The North Sea."}]), PLAIN),
        ("faq.csv", 'question,answer\n"Which sea?","The North Sea."\n', PLAIN),
        ("faq.tsv", "question\tanswer\nWhich sea?\tThe North Sea.\n", PLAIN),
        ("faq.jsonl", lines([{"question": "Which sea?", "answer": "The North Sea."}]), PLAIN),
        ("pairs.jsonl", lines([{"prompt": "Which sea?", "completion": "The North Sea."}]), PLAIN),
        ("nova.jsonl", lines([{"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "Be brief."}], "messages": [
            {"role": one["role"], "content": [{"text": one["content"]}]} for one in WANTED["messages"]]}]), WANTED),
    ],
)  # fmt: skip
def test_every_form_is_read(tmp_path: Path, name: str, text: str, wanted: dict) -> None:
    assert convert(written(tmp_path, name, text), tmp_path / "out.jsonl", "messages") == 1
    assert rows_of(tmp_path / "out.jsonl") == [wanted]


def test_forms_go_round_without_loss(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", lines([WANTED, PLAIN]))
    for before, after in (("a", "bedrock-conversation-2024"), ("b", "openai"), ("c", "messages")):
        convert(local_file(tmp_path / f"{before}.jsonl"), tmp_path / f"{chr(ord(before) + 1)}.jsonl", after)
    assert rows_of(tmp_path / "d.jsonl") == [WANTED, PLAIN]
    checked = datasets.preflight(datasets.Files(local_file(tmp_path / "b.jsonl")), SUPERVISED)
    assert checked.verdict != "fails"


def test_what_a_form_cannot_hold_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="line 2 has a system prompt"):
        convert(written(tmp_path, "a.jsonl", lines([PLAIN, WANTED])), tmp_path / "b.jsonl", "prompt/completion")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_columns_may_be_named_and_a_table_may_have_no_header(tmp_path: Path) -> None:
    table = written(tmp_path, "a.csv", '"Which sea?","x","The North Sea."\n')
    convert(table, tmp_path / "b.jsonl", "prompt/completion", Reading("1", "3", has_header=False))
    assert rows_of(tmp_path / "b.jsonl") == [{"prompt": "Which sea?", "completion": "The North Sea."}]
    with pytest.raises(Invalid, match="no answer under ''; there are q, x"):
        convert(written(tmp_path, "c.csv", "q,x\n1,2\n"), tmp_path / "d.jsonl", "messages", Reading("q"))


@pytest.mark.parametrize("form", WRITERS)
def test_what_is_written_is_read_again(tmp_path: Path, form: str) -> None:
    convert(written(tmp_path, "a.jsonl", lines([PLAIN])), tmp_path / "b.jsonl", form)
    assert convert(local_file(tmp_path / "b.jsonl"), tmp_path / "c.jsonl", "input") == 1


def test_a_mixture_has_its_shares_no_row_twice_and_says_where_each_came_from(tmp_path: Path) -> None:
    general = written(
        tmp_path, "general.jsonl", lines([{"prompt": f"general {n}", "completion": "g"} for n in range(50)])
    )
    special = written(tmp_path, "special.csv", "question,answer\n" + "".join(f"special {n},s\n" for n in range(20)))
    counts = mix([(general, 0.3), (special, 0.7)], tmp_path / "mixed.jsonl", "prompt/completion", seed=3)
    assert counts == {general.uri: 8, special.uri: 20}
    rows = rows_of(tmp_path / "mixed.jsonl")
    assert len({row["prompt"] for row in rows}) == 28
    sources = rows_of(tmp_path / "mixed.jsonl.sources.jsonl")
    assert [source["uri"].rpartition("/")[2].partition(".")[0] for source in sources] == [
        row["prompt"].split()[0] for row in rows
    ]
    mix([(general, 0.3), (special, 0.7)], tmp_path / "again.jsonl", "prompt/completion", seed=3)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "mixed.jsonl").read_bytes()
    with pytest.raises(Invalid, match="at most 28 can"):
        mix([(general, 0.3), (special, 0.7)], tmp_path / "more.jsonl", "messages", rows=40)


def test_a_split_keeps_groups_together_and_labels_in_proportion(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"question {n} about {n // 5}", "completion": ("yes", "no", "no")[n // 5 % 3], "document": n // 5}
        for n in range(300)
    ]
    parts = part(
        written(tmp_path, "a.jsonl", lines(rows)),
        tmp_path / "out",
        {"train": 80, "validation": 10, "test": 10},
        "document",
        "answer",
        seed=1,
    )
    assert sum(parts.rows.values()) == 300
    assert abs(parts.rows["validation"] - 30) <= 5
    documents = {name: {row["document"] for row in rows_of(tmp_path / "out" / f"{name}.jsonl")} for name in parts.rows}
    assert not documents["train"] & documents["validation"]
    assert not documents["train"] & documents["test"]
    for labels in parts.labels.values():
        assert abs(labels["yes"] / labels.total() - 1 / 3) < 0.1


def test_rows_with_the_same_prompt_are_never_parted(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {n % 20}", "completion": str(n)} for n in range(100)]
    part(written(tmp_path, "a.jsonl", lines(rows)), tmp_path / "out", {"train": 70, "validation": 30})
    found = datasets.preflight(
        datasets.Files(local_file(tmp_path / "out/train.jsonl"), (local_file(tmp_path / "out/validation.jsonl"),)),
        SUPERVISED,
    )
    assert not found.counts["leakage"]


def test_groups_may_stand_in_a_file_beside_and_a_missing_key_is_named(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        "a.jsonl",
        lines(
            [
                {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}]}
                for n in range(10)
            ]
        ),
    )
    keys = written(tmp_path, "keys.jsonl", lines([{"document": {"uri": f"d{n % 5}"}} for n in range(10)]))
    part(source, tmp_path / "out", {"train": 60, "test": 40}, "document.uri", keys=keys)
    train = {int(row["messages"][0]["content"][1:]) % 5 for row in rows_of(tmp_path / "out/train.jsonl")}
    assert not train & {int(row["messages"][0]["content"][1:]) % 5 for row in rows_of(tmp_path / "out/test.jsonl")}
    with pytest.raises(Invalid, match="line 1 has no customer"):
        part(source, tmp_path / "out", {"train": 60, "test": 40}, "customer")
    assert Counter(Counter(train).values()) == {1: 3}


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"question,answer\nIs it open?,Yes, until six\n", "line 2 has 3 cells for 2 columns"),
        ("a.csv", "question,answer\nx,\u00e9\n".encode("latin-1"), "is not UTF-8"), ("a.json", b'[{"instruction": "x", "output": null}]', "must be texts"),
        ("a.jsonl", b'{"question": "x", "answer": null}\n', "answer is null"), ("a.json", b'[{"conversations": [{"from": "human"}]}]', "value must be a text"),
    ],
)  # fmt: skip
def test_what_would_be_read_wrongly_is_refused(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Invalid, match=said):
        convert(local_file(tmp_path / name), tmp_path / "out.jsonl", "messages")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_split_does_not_write_over_its_source_and_leaves_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "completion": "a"} for n in range(20)]
    source = written(tmp_path, "train.jsonl", lines(rows))
    with pytest.raises(Invalid, match="would be written over"):
        part(source, tmp_path, {"train": 80, "validation": 20})
    assert rows_of(tmp_path / "train.jsonl") == rows
    part(source, tmp_path / "out", {"train": 60, "validation": 20, "test": 20})
    part(source, tmp_path / "out", {"train": 80, "validation": 20})
    assert not (tmp_path / "out/test.jsonl").exists()
