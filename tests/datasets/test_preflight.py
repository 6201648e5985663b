"""What a check of training data finds, and that it finds nothing where nothing is."""

import gzip
import importlib
import json
import random
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.planted import FAULTS, plant
from outcrop import datasets
from outcrop.datasets.formats import PLAIN_TEXT, SUPERVISED
from outcrop.datasets.kinds import FAILS, KINDS
from outcrop.datasets.source import Source, local_file
from outcrop.errors import Invalid
from outcrop.rendering import Conversation, Renderer
from tests.models import make_tokenizer

DATA = Path(__file__).parents[2].parent / "shared/data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not here")
PEBBLE = Path(__file__).parents[2] / "outcrop/registry/pebble"


def source(tmp_path: Path, rows: list, name: str = "train.jsonl") -> Source:
    path = tmp_path / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return local_file(path)


def pair(prompt: str, completion: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


def check(*files: Source, evaluation: tuple[Source, ...] = (), **more: object) -> datasets.Preflight:
    return datasets.preflight(datasets.Files(files[0], files[1:], evaluation), SUPERVISED, **more)


def rows_about(count: int, start: int = 0) -> list[dict[str, str]]:
    """Rows that are not like each other."""
    words = "amber birch cedar delta ember fjord grove heron inlet jetty knoll lagoon marsh north olive pearl".split()
    return [
        pair(f"{words[n % 16]} {words[(n // 16 + n) % 16]} question number {n} please", f"{words[(n * 7) % 16]} {n}")
        for n in range(start, start + count)
    ]


def found_at(found: datasets.Preflight) -> dict[int, set[str]]:
    places = defaultdict(set)
    for problem in found.problems:
        places[problem.line].add(problem.kind)
    return places


@pytest.mark.parametrize("shared_from", [10**12, 1], ids=["in one process", "in several"])
def test_every_planted_fault_is_found_on_its_line_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_from: int
) -> None:
    monkeypatch.setattr(importlib.import_module("outcrop.datasets.preflight"), "SHARED_FROM", shared_from)
    planted = plant(tmp_path / "rows.jsonl", 4_000_000, every=40)
    assert len(planted.faults) > 4 * len(FAULTS)
    found = check(local_file(tmp_path / "rows.jsonl"), base=datasets.Base(PEBBLE, 4096))
    places = found_at(found)
    assert found.reports[0].rows == planted.rows
    missed = {line: fault for line, fault in planted.faults.items() if fault[1] not in places[line]}
    assert not missed
    assert {line: kinds for line, kinds in places.items() if kinds and line not in planted.faults} == {}
    assert found.verdict == FAILS


@real_data
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("gsm8k/train.jsonl.gz", SUPERVISED), ("json_mode/json_mode_part1.jsonl.gz", SUPERVISED),
        ("aws/uber10k_prompts_part1.jsonl.gz", SUPERVISED), ("aws/tooluse_train_ft.jsonl", SUPERVISED),
        ("aws/tooluse_formatted_train_ft.jsonl.gz", SUPERVISED), ("faq/us_gov_covid_faq_part1.jsonl", SUPERVISED),
        ("tickets/call_transcripts_part1.jsonl.gz", PLAIN_TEXT), ("docs/18f_handbook.jsonl.gz", PLAIN_TEXT),
        ("docs/aws_s3_userguide_2023.jsonl.gz", PLAIN_TEXT), ("faq/help_center_articles.jsonl", PLAIN_TEXT),
    ],
)  # fmt: skip
def test_real_files_raise_no_false_alarm(tmp_path: Path, name: str, allowed: tuple) -> None:
    """What is left, addresses and examples of keys, was read by eye and is there."""
    raw = (DATA / name).read_bytes()
    rows = [json.loads(line) for line in (gzip.decompress(raw) if name.endswith(".gz") else raw).splitlines()]
    if "question" in rows[0]:
        rows = [pair(row["question"], row["answer"]) for row in rows]
    elif allowed is PLAIN_TEXT:
        rows = [{"input": row.get("text") or row["transcript"]} for row in rows]
    found = datasets.preflight(datasets.Files(source(tmp_path, rows)), allowed, base=datasets.Base(PEBBLE, 4096))
    allowed_kinds = {"contact", "secret-example", "answer-space", "other-schema", "few-rows"}
    if "tooluse_formatted" in name:
        allowed_kinds |= {"near-duplicate"}  # line 448 is: "prices" and "the prices"
    assert set(found.counts) <= allowed_kinds
    assert found.counts["near-duplicate"] <= 1


def test_a_held_out_prompt_among_the_training_rows_is_a_leak(tmp_path: Path) -> None:
    train = source(tmp_path, rows_about(40))
    held_out = source(tmp_path, [*rows_about(10, 100), rows_about(40)[7]], "validation.jsonl")
    close = dict(rows_about(40)[9])
    judged = source(tmp_path, [{"prompt": close["prompt"].upper(), "referenceResponse": "x"}], "evaluation.jsonl")
    found = check(train, held_out, evaluation=(judged,))
    leaks = [(problem.file, problem.line, problem.other) for problem in found.problems if problem.kind == "leakage"]
    assert leaks == [(1, 11, (0, 8)), (2, 1, (0, 10))]
    assert found.verdict == "hurts"


def test_a_leak_into_an_evaluation_file_is_seen_past_the_system_prompt(tmp_path: Path) -> None:
    def chat(row: dict[str, str]) -> dict:
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        return {"system": "Answer from the table, and be brief about it, please.", "messages": turns}

    train = source(tmp_path, [chat(row) for row in rows_about(40)])
    asked = [
        {"prompt": rows_about(40)[9]["prompt"], "referenceResponse": "x"},
        {"prompt": "something else entirely", "referenceResponse": "y"},
    ]
    found = check(train, evaluation=(source(tmp_path, asked, "evaluation.jsonl"),))
    leaks = [(problem.line, problem.other) for problem in found.problems if problem.kind == "leakage"]
    assert leaks == [(1, (0, 10))]


def test_evaluation_rows_without_an_answer_are_no_missing_label(tmp_path: Path) -> None:
    train = source(tmp_path, [pair(row["prompt"], ("yes", "no")[n % 2]) for n, row in enumerate(rows_about(40))])
    judged = source(tmp_path, [{"prompt": row["prompt"]} for row in rows_about(5, 100)], "evaluation.jsonl")
    assert not check(train, evaluation=(judged,)).counts["label-missing"]


def test_checks_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    texts = [source(tmp_path, rows_about(300 * (n + 1), 1000 * n), f"{n}.jsonl") for n in range(4)]
    alone = [dict(check(one).counts) for one in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda one: dict(check(one).counts), texts * 3)) == alone * 3


def test_a_crafted_line_takes_no_longer_than_others(tmp_path: Path) -> None:
    rows = [pair("token" * 20_000, "a"), pair("-eyJ" * 20_000, "b"), pair("1 " * 30_000, "c"), pair("@" * 50_000, "d")]
    began = time.monotonic()
    check(source(tmp_path, rows))
    assert time.monotonic() - began < 5


def test_near_duplicates_are_told_from_two_questions_on_one_document(tmp_path: Path) -> None:
    document = (
        "The harbour opens at six. Boats are let by the hour. Dogs are welcome on the quay, but not in the shop.\n"
    )
    rows = [
        pair(f"{document}{question}", "yes")
        for question in (
            "May I bring my dog along?",
            "Do you let boats to visitors?",
            "Is there a shop near the harbour?",
        )
    ]
    assert not check(source(tmp_path, rows)).counts["near-duplicate"]
    again = pair(f"{document}May I bring my dog along, please?", "Yes.")
    assert check(source(tmp_path, [*rows, again])).counts["near-duplicate"] == 1


def test_rows_that_differ_in_a_number_are_not_duplicates(tmp_path: Path) -> None:
    rows = [
        pair(f"What was the revenue of the northern region in the fiscal year {year}?", "up") for year in (2018, 2019)
    ]
    assert not check(source(tmp_path, rows)).counts["near-duplicate"]


def test_labels_are_looked_at_in_a_classification(tmp_path: Path) -> None:
    rows = [
        pair(f"{row['prompt']}", label)
        for row, label in zip(
            rows_about(130), ["refund"] * 100 + ["Refund"] * 4 + ["late"] * 20 + ["lost"] * 6, strict=True
        )
    ]
    held_out = [pair("what about a thing that broke", "broken")]
    found = check(source(tmp_path, rows), source(tmp_path, held_out, "validation.jsonl"))
    assert {"label-spelling", "label-balance", "label-missing"} <= set(found.counts)
    messages = " ".join(problem.message for problem in found.problems)
    assert "'refund' (100 rows), 'Refund' (4 rows)" in messages
    assert "'broken'" in messages


def test_settings_that_do_nothing_are_told(tmp_path: Path) -> None:
    file = source(tmp_path, rows_about(20))
    found = check(file, hyperparameters={"earlyStoppingPatience": "2", "batchSize": "16"})
    assert {"early-stopping", "few-rows"} <= set(found.counts)
    assert (
        "early-stopping"
        not in check(file, hyperparameters={"earlyStoppingPatience": "2", "evalPercentage": "10"}).counts
    )


def test_a_row_in_another_language_is_told(tmp_path: Path) -> None:
    english = [
        pair(
            f"Where can I find the opening hours of the {word} for the summer?",
            f"They are on the page of the {word}, and you can print them.",
        )
        for word in "library museum station school market bakery cinema".split()
    ]
    german = pair(
        "Wo kann ich die Öffnungszeiten der Bibliothek für den Sommer finden, und wie komme ich dahin?",
        "Die stehen auf der Seite.",
    )
    rows = [row for row in english for _ in range(1)] * 9
    rows[21] = german
    found = check(
        source(tmp_path, [pair(f"{row['prompt']} {n}", f"{row['completion']} {n}") for n, row in enumerate(rows)])
    )
    assert [(problem.line, problem.message) for problem in found.problems if problem.kind == "language"] == [
        (22, "is in German; most rows are in English")
    ]


def test_a_system_prompt_in_some_rows_alone_is_told(tmp_path: Path) -> None:
    def chat(number: int, **more: str) -> dict:
        return {
            "messages": [
                {"role": "user", "content": f"q {number} {'abcdef'[number]}"},
                {"role": "assistant", "content": f"{number}"},
            ],
            **more,
        }

    some = check(source(tmp_path, [chat(n, **({"system": "Be brief."} if n % 2 else {})) for n in range(6)]))
    assert "3 of 6 rows have a system prompt" in " ".join(map(str, some.problems))
    assert "no row has a system prompt" in " ".join(
        map(str, check(source(tmp_path, [chat(n) for n in range(6)])).problems)
    )


def test_over_long_rows_are_counted_in_the_bases_own_tokens(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    rows = [pair("the cat sat " * count, "x") for count in (1, 4, 9, 20)]
    found = check(source(tmp_path, rows), base=datasets.Base(tmp_path, 60))
    assert [problem.line for problem in found.problems if problem.kind == "overlong"] == [4]


def test_no_row_is_too_long_unseen_near_the_limit(tmp_path: Path) -> None:
    """Rows around the limit are told by their real tokens, whatever estimates stand before."""
    draw = random.Random(3)
    words = [
        "the",
        "harbour",
        "Zq\u00e9x",
        "1,234",
        "\n\n",
        "",
        "don't",
        "naïve",
        "a_b-c",
        "\t",
        "({[",
        "supercalifragilistic",
    ]
    rows = [pair(" ".join(draw.choices(words, k=draw.randint(150, 420))), "x y z") for _ in range(120)]
    renderer = Renderer(PEBBLE)
    lengths = [len(renderer.training_row(Conversation.of(row["prompt"], row["completion"])).tokens) for row in rows]
    most = sorted(lengths)[60]
    found = check(source(tmp_path, rows), base=datasets.Base(PEBBLE, most), compares=False)
    told = {problem.line for problem in found.problems if problem.kind == "overlong"}
    assert told == {line for line, length in enumerate(lengths, 1) if length > most}


def test_every_kind_of_finding_is_in_the_table_with_a_remedy() -> None:
    assert all(kind.meaning and kind.remedy for kind in KINDS.values())


def test_a_family_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="known are claude-3-haiku"):
        check(source(tmp_path, rows_about(3)), family="gemini")


def test_findings_beyond_what_is_kept_are_counted(tmp_path: Path) -> None:
    found = check(source(tmp_path, [*rows_about(2), *['{"prompt": "x"}'] * 50]), kept=10)
    assert found.counts["missing-key"] == 50
    assert Counter(problem.kind for problem in found.problems)["missing-key"] == 10
